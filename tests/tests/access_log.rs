//! The access log of the whole program: files that rotate, fill up and change their form while requests go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::edge::service_with;
use lb_tests::level;
use lb_tests::site::Site;
use lb_tests::visitor::Visitor;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

const ROUTES: &str = "  - {path: /**, pool: shop, public: true}\n";
const WRITTEN_WITHIN: Duration = Duration::from_secs(20);
const LOST: &str = "lb_access_log_dropped_total";

async fn site(log: &str) -> Result<Option<Site>> {
    Site::open(|address, backend| Ok(format!("{}{log}", service_with(address, backend, ROUTES)))).await
}

async fn get(site: &Site, path: &str) -> Result<()> {
    let answer = Visitor::default().get(&site.url(path), &[("user-agent", "a \"reader\"")]).await?;
    ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.text());
    Ok(())
}

/// What `read` makes of the file, once it makes something of it.
async fn eventually<T>(file: &Path, what: &str, read: impl Fn(&str) -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + WRITTEN_WITHIN;
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        if let Some(found) = read(&text) {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "{what}: not within {WRITTEN_WITHIN:?}; {} has\n{text}", file.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn about(text: &str, part: &str) -> Option<String> {
    text.lines().find(|line| line.contains(part)).map(str::to_owned)
}

#[tokio::test]
async fn a_rotators_signal_and_an_edit_of_the_configuration_take_effect_without_a_restart() -> Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("logs/access.log");
    let section = format!("access_log: {{file: {}}}\n", file.display());
    let Some(site) = site(&section).await? else { return Ok(()) };
    get(&site, "/one?token=secret").await?;
    let line: Value = serde_json::from_str(&eventually(&file, "the first line", |text| about(text, "/one")).await?)?;
    ensure!(line["status"] == 200 && line["path"] == "/one" && line["protocol"] == "HTTP/1.1", "{line}");

    let aside = folder.path().join("logs/access.log-20260131");
    fs::rename(&file, &aside)?;
    kill(Pid::from_raw(i32::try_from(site.edge.process_id())?), Signal::SIGUSR1)?;
    eventually(&file, "a file of its own after the signal", |_| file.exists().then_some(())).await?;
    get(&site, "/two").await?;
    eventually(&file, "the line after the signal", |text| about(text, "/two")).await?;
    ensure!(about(&fs::read_to_string(&aside)?, "/two").is_none(), "the file that was put aside goes on");

    let combined = section.replace("}", ", format: combined}");
    site.reconfigure(&section, &combined)?;
    get(&site, "/three?token=secret").await?;
    let line = eventually(&file, "a combined line", |text| about(text, "/three")).await?;
    ensure!(line.contains("\"GET /three HTTP/1.1\" 200 ") && line.ends_with(r#" "-" "a \"reader\"""#), "{line}");

    site.reconfigure(&section, "access_log: off\n")?;
    get(&site, "/four").await?;
    site.reconfigure(&section, &combined)?;
    get(&site, "/five").await?;
    let text = eventually(&file, "the last line", |text| about(text, "/five").map(|_| text.to_owned())).await?;
    ensure!(about(&text, "/four").is_none() && about(&text, "secret").is_none(), "{text}");
    ensure!(about(&site.edge.log(), "\"/two\"").is_none(), "lines for the file are in the log too");

    // What cannot be opened is refused, and everything goes on.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("/etc/passwd", &link)?;
    site.edge.offer(&site.configuration().replace(&section, &format!("access_log: {{file: {}}}\n", link.display())))?;
    site.eventually("the link is refused", async |site| Ok(site.edge.log().contains("is a symbolic link"))).await?;
    get(&site, "/six").await?;
    eventually(&file, "the old log goes on", |text| about(text, "/six")).await?;
    Ok(())
}

/// A file system of its own, so small that it is full at once.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(path: PathBuf) -> Result<SmallDisk> {
        fs::create_dir(&path)?;
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=64k"))?;
        Ok(SmallDisk(path))
    }

    fn fill(&self) -> Result<()> {
        let error = fs::write(self.0.join("filler"), vec![0; 1 << 20]).err().context("it holds a megabyte")?;
        ensure!(error.kind() == std::io::ErrorKind::StorageFull, "{error}");
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.join("filler"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn on_a_full_disk_lines_are_lost_and_counted_requests_go_on_and_with_room_it_is_written_again() -> Result<()> {
    if !level::has_root("peers") {
        return Ok(());
    }
    let folder = TempDir::new()?;
    let disk = SmallDisk::at(folder.path().join("logs"))?;
    let file = disk.0.join("access.log");
    let Some(site) = site(&format!("access_log: {{file: {}}}\n", file.display())).await? else { return Ok(()) };
    get(&site, "/before").await?;
    eventually(&file, "the line before", |text| about(text, "/before")).await?;

    disk.fill()?;
    let mut asked = 0;
    while site.edge.metrics()?.value(LOST) == 0.0 {
        ensure!(asked < 500, "nothing is lost after {asked} requests on a full disk");
        get(&site, &format!("/full/{asked}")).await?;
        asked += 1;
    }
    get(&site, "/still-served").await?;
    site.eventually("operators are told", async |site| Ok(site.edge.log().contains("cannot be written"))).await?;

    disk.make_room()?;
    get(&site, "/after").await?;
    let text = eventually(&file, "the line after", |text| about(text, "/after").map(|_| text.to_owned())).await?;
    let mut written = 0;
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("half a line: {line:?}"))?;
        written += usize::from(line["path"].as_str().is_some_and(|path| path.starts_with("/full/")));
    }
    let lost = site.edge.metrics()?.value(LOST) as usize;
    let not_counted = usize::from(about(&text, "/still-served").is_none());
    ensure!(written + lost == asked + not_counted, "of {asked} requests {written} were written and {lost} counted");
    Ok(())
}

#[tokio::test]
async fn files_are_put_aside_by_size_and_the_oldest_deleted() -> Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("access.log");
    let section = format!("access_log: {{file: {}, rotate: {{size: 64KiB, keep: 2}}}}\n", file.display());
    let Some(site) = site(&section).await? else { return Ok(()) };
    let kept = |number: u32| folder.path().join(format!("access.log.{number}"));
    let path = format!("/{}", "x".repeat(500));
    let mut asked = 0;
    while !kept(2).exists() {
        ensure!(asked < 2_000, "nothing is put aside after {asked} requests");
        get(&site, &path).await?;
        asked += 1;
    }
    for number in [1, 2] {
        let bytes = fs::metadata(kept(number))?.len();
        ensure!((32 * 1024..=64 * 1024).contains(&bytes), "file {number} has {bytes} bytes");
    }
    let before = fs::read_to_string(kept(2))?;
    while fs::read_to_string(kept(2))? == before {
        get(&site, &path).await?;
        asked += 1;
        ensure!(asked < 4_000, "the oldest file stays");
    }
    ensure!(!kept(3).exists());
    Ok(())
}
