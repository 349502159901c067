use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use lb_datapath::Listed;

use super::*;
use crate::config::ListEntry;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn files(deny: &[&Path], allow: &[&Path]) -> ListsConfig {
    let entries = |files: &[&Path]| files.iter().map(|file| ListEntry::File(file.to_path_buf())).collect();
    ListsConfig { deny: entries(deny), allow: entries(allow) }
}

/// A folder with one deny list, followed; what is put in force arrives as lists.
struct Followed {
    folder: tempfile::TempDir,
    lists: Arc<Lists>,
    put: Receiver<CompiledLists>,
    follower: Follower,
}

impl Followed {
    fn new(text: &str) -> Followed {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deny.txt");
        fs::write(&file, text).unwrap();
        let first = check(&files(&[&file], &[])).unwrap();
        let (sender, put) = mpsc::channel();
        // The test may be over.
        let lists = Arc::new(Lists::new(first, move |lists| drop(sender.send(lists))));
        let follower = Follower::start(lists.clone()).unwrap();
        Followed { folder, lists, put, follower }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn next(&self) -> CompiledLists {
        self.put.recv_timeout(Duration::from_secs(20)).expect("lists are put in force")
    }

    fn await_refusal(&self) -> Arc<Refusal> {
        let begin = std::time::Instant::now();
        loop {
            if let Some(refusal) = self.lists.refusal() {
                return refusal;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "nothing was refused");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_file_written_or_renamed_over_is_read_again() {
    let followed = Followed::new("10.0.0.0/8\n");
    fs::write(followed.path("deny.txt"), "192.0.2.0/24\n").unwrap();
    let lists = followed.next();
    assert_eq!(lists.find(address("192.0.2.1")), Listed::Denied);
    assert_eq!(lists.find(address("10.0.0.1")), Listed::Unlisted);
    fs::write(followed.path("new"), "203.0.113.7").unwrap();
    fs::rename(followed.path("new"), followed.path("deny.txt")).unwrap();
    assert_eq!(followed.next().find(address("203.0.113.7")), Listed::Denied);
}

#[test]
fn a_file_that_its_writer_keeps_open_is_read_again() {
    let followed = Followed::new("192.0.2.0/24\n");
    let mut file = fs::File::options().append(true).open(followed.path("deny.txt")).unwrap();
    std::io::Write::write_all(&mut file, b"198.51.100.0/24\n").unwrap();
    assert_eq!(followed.next().find(address("198.51.100.7")), Listed::Denied);
    drop(file);
}

#[test]
fn a_bad_file_is_refused_whole_with_every_mistake_and_the_old_list_stays() {
    let followed = Followed::new("10.0.0.0/8\n");
    fs::write(followed.path("deny.txt"), "192.0.2.0/24\nnonsense\n10.0.0.1/8\n").unwrap();
    let refusal = followed.await_refusal().to_string();
    let file = followed.path("deny.txt").display().to_string();
    assert!(refusal.contains(&format!("{file}:2: `nonsense` is no prefix")), "{refusal}");
    assert!(
        refusal.contains(&format!("{file}:3: there are bits beyond the prefix; the block is 10.0.0.0/8")),
        "{refusal}"
    );
    let in_force = followed.lists.in_force().expect("the old list");
    assert_eq!(in_force.decision(address("10.2.3.4")).unwrap().prefix.to_string(), "10.0.0.0/8");
    assert!(in_force.decision(address("192.0.2.1")).is_none());
    fs::write(followed.path("deny.txt"), "192.0.2.0/24\n").unwrap();
    assert_eq!(followed.next().find(address("192.0.2.1")), Listed::Denied);
    assert!(followed.lists.refusal().is_none());
}

#[test]
fn the_files_of_a_new_configuration_are_followed_instead() {
    let followed = Followed::new("10.0.0.0/8\n");
    let elsewhere = tempfile::tempdir().unwrap();
    let allow = elsewhere.path().join("allow.txt");
    fs::write(&allow, "192.0.2.53\n").unwrap();
    let config = files(&[&followed.path("deny.txt")], &[&allow]);
    let prepared = followed.lists.prepare(&config).unwrap().expect("another configuration");
    followed.lists.put(prepared);
    assert_eq!(followed.next().find(address("192.0.2.53")), Listed::Allowed);
    followed.follower.follow_files().unwrap();
    assert!(followed.lists.prepare(&config).unwrap().is_none(), "nothing has changed since");
    fs::write(&allow, "192.0.2.54\n").unwrap();
    assert_eq!(followed.next().find(address("192.0.2.54")), Listed::Allowed);
}

#[test]
fn the_file_and_line_that_decide_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let [deny, allow] = ["deny.txt", "allow.txt"].map(|name| folder.path().join(name));
    fs::write(&deny, "# bad\n10.0.0.0/8\n10.1.0.0/16\n10.1.2.0/24\n").unwrap();
    fs::write(&allow, "10.1.0.0/16\n").unwrap();
    let mut config = files(&[&deny], &[&allow]);
    config.deny.push(ListEntry::Prefix("2001:db8::/32".parse().unwrap()));
    let prepared = check(&config).unwrap();
    let catalogue = &prepared.loaded.catalogue;
    for (text, expected) in [
        ("10.200.0.1", Some(("10.0.0.0/8", Listed::Denied, Some(&deny), 2))),
        ("10.1.9.1", Some(("10.1.0.0/16", Listed::Allowed, Some(&allow), 1))),
        ("10.1.2.1", Some(("10.1.2.0/24", Listed::Denied, Some(&deny), 4))),
        ("2001:db8::1", Some(("2001:db8::/32", Listed::Denied, None, 0))),
        ("192.0.2.1", None),
    ] {
        let decision = catalogue.decision(address(text));
        let of_maps = prepared.compiled().find(address(text));
        assert_eq!(of_maps, decision.as_ref().map_or(Listed::Unlisted, |decision| decision.listed), "{text}");
        let shown = decision.as_ref().map(|one| (one.prefix.to_string(), one.listed, one.file.as_deref(), one.line));
        let expected =
            expected.map(|(prefix, listed, file, line)| (prefix.to_owned(), listed, file.map(PathBuf::as_path), line));
        assert_eq!(shown, expected, "{text}");
    }
}

#[test]
fn a_file_that_is_missing_or_a_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.txt");
    let refusal = check(&files(&[&missing, folder.path()], &[])).err().expect("refused").to_string();
    assert!(refusal.contains("none.txt: the file cannot be read: No such file"), "{refusal}");
    assert!(refusal.contains(&format!("{}: this is no file", folder.path().display())), "{refusal}");
}

#[test]
fn too_many_prefixes_and_too_many_mistakes_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("long.txt");
    fs::write(&file, "192.0.2.1\n".repeat(2_000_001)).unwrap();
    let refusal = check(&files(&[&file], &[])).err().expect("refused").to_string();
    assert!(refusal.contains("more than 2000000 IPv4 prefixes"), "{refusal}");
    fs::write(&file, "x\n".repeat(1000)).unwrap();
    let refusal = check(&files(&[&file], &[])).err().expect("refused").to_string();
    assert_eq!(refusal.lines().count(), 51);
    assert!(refusal.ends_with("and 950 more"), "{refusal}");
}
