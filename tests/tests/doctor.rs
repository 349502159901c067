//! What `lb-controller doctor` says of a kernel and of interfaces, and that its remedies mend.

use std::process::{Command, Output};

use lb_tests::level::controller;
use lb_tests::netns::Namespace;
use serde_json::Value;

/// Exit codes (see `lb-controller --help`).
const PERMISSION: i32 = 4;
const INTERFACE: i32 = 6;

/// Runs it in the namespace, perhaps through another program.
fn doctor(edge: &Namespace, through: &[&str], arguments: &[&str]) -> Option<Output> {
    let program = controller()?;
    let mut words: Vec<std::ffi::OsString> = through.iter().map(Into::into).collect();
    words.push(program.into());
    words.extend(["--instance", "lb-test-doctor", "doctor"].map(Into::into));
    words.extend(arguments.iter().map(Into::into));
    Some(edge.run(move || Command::new(&words[0]).args(&words[1..]).output().expect("it runs")))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The findings about the only interface that are not good: `what: remedy`.
fn complaints(examination: &Value) -> Vec<String> {
    let findings = examination["interfaces"][0]["findings"].as_array().expect("findings");
    let bad = findings.iter().filter(|finding| finding["grade"] != "good");
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    bad.map(|finding| format!("{}: {}", text(finding, "what"), text(finding, "remedy"))).collect()
}

#[test]
fn this_kernel_is_fit_and_what_the_doctor_says_of_an_interface_mends_it() {
    if controller().is_none() {
        return;
    }
    let edge = Namespace::new();
    edge.ip("link add front numrxqueues 4 numtxqueues 4 type veth peer name peer numrxqueues 1 numtxqueues 1");
    edge.ip("link set front up");
    edge.run(|| assert!(Command::new("ethtool").args(["-L", "front", "rx", "1"]).status().expect("runs").success()));
    let Some(output) = doctor(&edge, &[], &["--iface", "front", "--json"]) else { return };
    assert!(output.status.success(), "{output:?}");
    let examination = json(&output);
    let kernel = examination["kernel"].as_array().expect("findings");
    assert!(kernel.iter().all(|finding| finding["grade"] != "bad"), "{kernel:?}");
    assert!(kernel.iter().any(|finding| finding["what"] == "programs"), "the programs were loaded: {kernel:?}");
    let tables = examination["maps"].as_array().expect("maps").iter().find(|map| map["name"] == "TABLES");
    assert!(tables.expect("listed")["bytes"].as_u64() > Some(32 << 20), "{tables:?}");

    let before = complaints(&examination);
    let commands: Vec<_> = before.iter().map(|complaint| complaint.split('`').nth(1).expect("a command")).collect();
    let cpus = std::thread::available_parallelism().expect("counted").get().min(4);
    assert!(commands.contains(&"ethtool -K front rxvlan off"), "{commands:?}");
    assert!(cpus == 1 || commands.contains(&format!("ethtool -L front rx {cpus}").as_str()), "{commands:?}");
    for command in commands {
        let command = command.to_owned();
        edge.run(move || {
            let words: Vec<_> = command.split(' ').collect();
            assert!(Command::new(words[0]).args(&words[1..]).status().expect("runs").success(), "{command}");
        });
    }
    let output = doctor(&edge, &[], &["--iface", "front", "--json"]).expect("it ran before");
    assert_eq!(complaints(&json(&output)), Vec::<String>::new());
}

#[test]
fn an_absent_interface_and_absent_rights_have_exit_codes_of_their_own() {
    if controller().is_none() {
        return;
    }
    let edge = Namespace::new();
    let Some(output) = doctor(&edge, &[], &["--iface", "frnot"]) else { return };
    assert_eq!(output.status.code(), Some(INTERFACE), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("see `ip link`"), "{output:?}");
    let without = ["setpriv", "--bounding-set", "-bpf", "--inh-caps", "-bpf"];
    let output = doctor(&edge, &without, &["--json"]).expect("it ran before");
    assert_eq!(output.status.code(), Some(PERMISSION), "{output:?}");
    let examination = json(&output);
    let capabilities = examination["kernel"].as_array().expect("findings").iter();
    let capabilities = capabilities.into_iter().find(|finding| finding["what"] == "capabilities").expect("looked at");
    let remedy = capabilities["remedy"].as_str().expect("a remedy");
    assert!(remedy.contains("missing CAP_BPF"), "{remedy}");
}
