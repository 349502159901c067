//! What is written of each request, and where to.

use std::path::Path;
use std::time::Duration;

use super::super::section::{Complaint, Section};
use super::super::tree::{Node, Value};
use super::super::{AccessFormat, AccessLogConfig, AlwaysLogged, LogDestination, LogFileConfig, Rotation, values};
use super::path_in;

const SMALLEST_FILE_BYTES: u64 = 64 * 1024;
const MOST_KEPT: u32 = 1_000;
/// Each file that is kept is renamed whenever another one comes.
const DEFAULT_KEPT: u32 = 10;
const MOST_ONE_IN: u32 = 1_000_000;
const LONGEST_SLOW: Duration = Duration::from_secs(24 * 3600);

pub(super) fn compile(config: &Section<'_>, folder: &Path) -> Option<AccessLogConfig> {
    let node = config.get("access_log")?;
    let usual = AccessLogConfig::default();
    if let Value::Text(text) = &node.value {
        if text != "off" {
            let help = "write `off`, or `key: value` lines such as `file: access.log`";
            config.problems.report(&node.place, Complaint::new(format!("`{text}` says nothing of a log"), help));
        }
        return Some(AccessLogConfig { destination: LogDestination::Off, ..usual });
    }
    let section = Section::open("`access_log`", node, config.problems)?;
    let slow = values::duration(Duration::from_millis(1)..=LONGEST_SLOW);
    let log = AccessLogConfig {
        destination: destination(&section, folder),
        format: section.value("format", format),
        one_in: section.value("sample", one_in).unwrap_or(usual.one_in),
        always: if section.has("always") { always(&section) } else { usual.always },
        slow: section.value("slow", slow).unwrap_or(usual.slow),
    };
    section.finish();
    Some(log)
}

fn destination(section: &Section<'_>, folder: &Path) -> LogDestination {
    let path = section.value("file", |text| path_in(folder, text));
    let rotation = section.get("rotate").and_then(|node| rotation(node, section));
    if section.has("rotate") && !section.has("file") {
        let help = "name a `file`, or leave `rotate` out";
        section.report_key("rotate", Complaint::new("standard error is no file that could be put aside", help));
    }
    path.map_or(LogDestination::StandardError, |path| LogDestination::File(LogFileConfig { path, rotation }))
}

fn rotation(node: &Node, log: &Section<'_>) -> Option<Rotation> {
    let section = Section::open("`rotate`", node, log.problems)?;
    let size_bytes = section.required_value("size", |text| match values::size_bytes(text)? {
        size if size >= SMALLEST_FILE_BYTES => Ok(size),
        _ => Err("a file is put aside at 64KiB at the least".into()),
    });
    let keep = section.value("keep", values::number(1..=MOST_KEPT)).unwrap_or(DEFAULT_KEPT);
    section.finish();
    Some(Rotation { size_bytes: size_bytes?, keep })
}

fn format(text: &str) -> Result<AccessFormat, Complaint> {
    match text {
        "json" => Ok(AccessFormat::Json),
        "common" => Ok(AccessFormat::Common),
        "combined" => Ok(AccessFormat::Combined),
        _ => Err(Complaint::unknown("format", text, ["json", "common", "combined"])),
    }
}

/// `1/10`: one in ten.
fn one_in(text: &str) -> Result<u32, Complaint> {
    let complaint = || Complaint::new(format!("`{text}` is no share of requests"), "write 1/10 for one in ten");
    let number = text.strip_prefix("1/").ok_or_else(complaint)?;
    values::number(1..=MOST_ONE_IN)(number)
}

fn always(section: &Section<'_>) -> AlwaysLogged {
    let mut always = AlwaysLogged { errors: false, denials: false, slow: false };
    for node in section.list("always") {
        node.read(section.problems, |text| {
            match text {
                "errors" => always.errors = true,
                "denials" => always.denials = true,
                "slow" => always.slow = true,
                _ => return Err(Complaint::unknown("kind of request", text, ["errors", "denials", "slow"])),
            }
            Ok(())
        });
    }
    always
}

#[cfg(test)]
mod tests {
    use super::super::compile as compile_all;
    use super::*;

    const REST: &str = "\npools: {name: shop, backends: \"10.0.0.1:80\"}\nroutes: {path: /**, pool: shop}\n";

    fn read(text: &str) -> Result<Option<AccessLogConfig>, String> {
        let config = compile_all("lb.yaml", &format!("{text}{REST}"), Path::new("/etc/lb"));
        config.map(|config| config.access_log).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn what_a_section_leaves_out_is_as_usual_and_without_one_nothing_is_said() {
        let usual = AccessLogConfig::default;
        let file = |rotation| LogDestination::File(LogFileConfig { path: "/etc/lb/a.log".into(), rotation });
        let some = |rotation| AccessLogConfig { destination: file(rotation), ..usual() };
        for (text, expected) in [
            ("", None),
            ("access_log: off", Some(AccessLogConfig { destination: LogDestination::Off, ..usual() })),
            ("access_log: {format: json}", Some(AccessLogConfig { format: Some(AccessFormat::Json), ..usual() })),
            ("access_log: {file: a.log}", Some(some(None))),
            (
                "access_log: {file: a.log, rotate: {size: 1MiB}}",
                Some(some(Some(Rotation { size_bytes: 1 << 20, keep: 10 }))),
            ),
            (
                "access_log: {sample: 1/20, always: [slow], slow: 250ms}",
                Some(AccessLogConfig {
                    one_in: 20,
                    always: AlwaysLogged { errors: false, denials: false, slow: true },
                    slow: Duration::from_millis(250),
                    ..usual()
                }),
            ),
            (
                "access_log: {always: []}",
                Some(AccessLogConfig {
                    always: AlwaysLogged { errors: false, denials: false, slow: false },
                    ..usual()
                }),
            ),
        ] {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_mistake_is_told_with_what_to_write() {
        for (text, told) in [
            ("access_log: on", "write `off`"),
            ("access_log: {format: apache}", "combined"),
            ("access_log: {sample: 10%}", "1/10"),
            ("access_log: {sample: 1/0}", "1000000"),
            ("access_log: {rotate: {size: 1MiB}}", "name a `file`"),
            ("access_log: {file: a, rotate: {size: 1KiB}}", "64KiB"),
            ("access_log: {file: a, rotate: {keep: 3}}", "needs `size`"),
            ("access_log: {always: [warnings]}", "denials"),
            ("access_log: {fil: a}", "has no key `fil`"),
        ] {
            let wrong = read(text).unwrap_err();
            assert!(wrong.contains(told), "{text}: {wrong}");
        }
    }
}
