use std::fs;
use std::sync::mpsc;

use super::*;

const GOOD: &str = "pools: [{name: shop, backends: [\"10.0.0.1:80\"]}]\nroutes: [{path: /**, pool: shop}]\n";

/// A file called `lb.yaml` in a folder of its own, followed; what is reported arrives as `name of the pool` or `refused`.
struct Followed {
    folder: tempfile::TempDir,
    reports: mpsc::Receiver<String>,
    _watcher: Watcher,
}

impl Followed {
    fn new(prepare: impl FnOnce(&Path)) -> Followed {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let file = folder.path().join("lb.yaml");
        let (sender, reports) = mpsc::channel();
        let text = read(&file).unwrap();
        let taken_in = compile_read(&file, &text).map(|config| config.taken_in).unwrap_or_default();
        let known = Known { text, taken_in };
        let report = move |changed: Result<Config, Diagnostics>| {
            let line = changed.map_or_else(|_| "refused".to_owned(), |config| config.pools[0].name.clone());
            // The test may be over.
            let _ = sender.send(line);
        };
        let watcher = Watcher::start(&file, Some(known), report).unwrap();
        Followed { folder, reports, _watcher: watcher }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn next(&self) -> String {
        self.reports.recv_timeout(Duration::from_secs(10)).expect("a change is reported")
    }
}

fn good(pool: &str) -> String {
    GOOD.replace("shop", pool)
}

fn plain_file(folder: &Path) {
    fs::write(folder.join("lb.yaml"), GOOD).unwrap();
}

#[test]
fn an_edit_in_place_is_seen() {
    let followed = Followed::new(plain_file);
    fs::write(followed.path("lb.yaml"), good("two")).unwrap();
    assert_eq!(followed.next(), "two");
    fs::write(followed.path("lb.yaml"), "pools: [").unwrap();
    assert_eq!(followed.next(), "refused");
    fs::write(followed.path("lb.yaml"), good("three")).unwrap();
    assert_eq!(followed.next(), "three");
}

#[test]
fn a_file_that_is_being_written_is_waited_for() {
    let followed = Followed::new(plain_file);
    let truncated = fs::File::create(followed.path("lb.yaml")).unwrap();
    // Well beyond the quiet that ends an ordinary save.
    assert!(followed.reports.recv_timeout(QUIET * 4).is_err());
    std::io::Write::write_all(&mut &truncated, good("two").as_bytes()).unwrap();
    drop(truncated);
    assert_eq!(followed.next(), "two");
}

#[test]
fn a_folder_put_in_the_place_of_another_is_followed_on() {
    let followed = Followed::new(plain_file);
    let elsewhere = tempfile::tempdir().unwrap();
    fs::rename(followed.folder.path(), elsewhere.path().join("old")).unwrap();
    fs::create_dir(followed.folder.path()).unwrap();
    // For a moment there is no file, which may be told of.
    let next = || Some(followed.next()).filter(|report| report != "refused").unwrap_or_else(|| followed.next());
    fs::write(followed.path("lb.yaml"), good("two")).unwrap();
    assert_eq!(next(), "two");
    fs::write(followed.path("lb.yaml"), good("three")).unwrap();
    assert_eq!(followed.next(), "three");
}

#[test]
fn a_file_renamed_over_is_seen_again_and_again() {
    let followed = Followed::new(plain_file);
    for pool in ["two", "three", "four"] {
        fs::write(followed.path("lb.yaml.new"), good(pool)).unwrap();
        fs::rename(followed.path("lb.yaml.new"), followed.path("lb.yaml")).unwrap();
        assert_eq!(followed.next(), pool);
    }
}

#[test]
fn a_link_that_is_turned_elsewhere_is_seen() {
    let followed = Followed::new(|folder| {
        for (version, pool) in [("v1", "shop"), ("v2", "two")] {
            fs::create_dir(folder.join(version)).unwrap();
            fs::write(folder.join(version).join("lb.yaml"), good(pool)).unwrap();
        }
        std::os::unix::fs::symlink("v1", folder.join("current")).unwrap();
        std::os::unix::fs::symlink("current/lb.yaml", folder.join("lb.yaml")).unwrap();
    });
    std::os::unix::fs::symlink("v2", followed.path("next")).unwrap();
    fs::rename(followed.path("next"), followed.path("current")).unwrap();
    assert_eq!(followed.next(), "two");
}

#[test]
fn a_file_that_goes_away_is_told_once_and_may_come_back() {
    let followed = Followed::new(plain_file);
    fs::remove_file(followed.path("lb.yaml")).unwrap();
    assert_eq!(followed.next(), "refused");
    fs::write(followed.path("other"), "").unwrap();
    fs::write(followed.path("lb.yaml"), GOOD).unwrap();
    assert_eq!(followed.next(), "shop");
}

#[test]
fn a_file_that_the_configuration_takes_in_is_followed_too() {
    let followed = Followed::new(|folder| {
        fs::write(folder.join("office.txt"), "192.0.2.0/24\n").unwrap();
        fs::write(folder.join("lb.yaml"), [GOOD, "sets: {office: {file: office.txt}}\n"].concat()).unwrap();
    });
    for (text, expected) in [("192.0.2.0/25\n", "shop"), ("nonsense\n", "refused"), ("192.0.2.0/26\n", "shop")] {
        fs::write(followed.path("new"), text).unwrap();
        fs::rename(followed.path("new"), followed.path("office.txt")).unwrap();
        assert_eq!(followed.next(), expected, "{text}");
    }
}

#[test]
fn what_changes_nothing_is_not_reported() {
    let followed = Followed::new(plain_file);
    fs::write(followed.path("lb.yaml"), GOOD).unwrap();
    fs::write(followed.path("other"), good("other")).unwrap();
    fs::write(followed.path("lb.yaml"), good("two")).unwrap();
    assert_eq!(followed.next(), "two");
}

#[test]
fn an_edit_before_the_watch_began_is_not_missed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lb.yaml");
    fs::write(&file, good("two")).unwrap();
    let (sender, reports) = mpsc::channel();
    let report =
        move |changed: Result<Config, Diagnostics>| sender.send(changed.unwrap().pools[0].name.clone()).unwrap();
    let _watcher = Watcher::start(&file, Some(Known { text: GOOD.to_owned(), taken_in: Vec::new() }), report).unwrap();
    assert_eq!(reports.recv_timeout(Duration::from_secs(10)).unwrap(), "two");
}

#[test]
fn a_folder_that_is_not_there_cannot_be_followed() {
    let folder = tempfile::tempdir().unwrap();
    let error = Watcher::start(&folder.path().join("none/lb.yaml"), None, |_| {}).err().unwrap();
    assert_eq!(error.to_string(), format!("{} cannot be followed for changes", folder.path().join("none").display()));
}
