//! Debian packages, by the program each provides.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Purpose;
use crate::run;

/// A program, the Debian package that brings it, and the first purpose that needs it.
struct Program {
    name: &'static str,
    package: &'static str,
    needed_for: Purpose,
}

/// Only what is really called. Whoever reads this on another distribution finds the programs' names here.
const PROGRAMS: &[Program] = &[
    // rustc links with it, and aws-lc is written in C.
    Program { name: "cc", package: "gcc libc6-dev", needed_for: Purpose::Build },
    Program { name: "make", package: "make", needed_for: Purpose::Build },
    Program { name: "ip", package: "iproute2", needed_for: Purpose::Demo },
    Program { name: "nsenter", package: "util-linux", needed_for: Purpose::Demo },
    Program { name: "curl", package: "curl", needed_for: Purpose::Demo },
    // veth leaves checksums to a card that is not there; packets that XDP sends on need them.
    Program { name: "ethtool", package: "ethtool", needed_for: Purpose::Test },
    // The demo's commands ask it for the code of the moment.
    Program { name: "oathtool", package: "oathtool", needed_for: Purpose::Demo },
    // Another reading of TLS than the edge's, and a TLS server for health checks.
    Program { name: "openssl", package: "openssl", needed_for: Purpose::Test },
    // A certificate authority, and the name server that it asks.
    Program { name: "pebble", package: "pebble", needed_for: Purpose::Test },
    // A name server with zones of the tests'.
    Program { name: "nsd", package: "nsd", needed_for: Purpose::Test },
    // Signs as developers do.
    Program { name: "ssh-keygen", package: "openssh-client", needed_for: Purpose::Test },
    // Reads the captures that the tests have written.
    Program { name: "tcpdump", package: "tcpdump", needed_for: Purpose::Test },
    // Clients that never come to an end.
    Program { name: "slowhttptest", package: "slowhttptest", needed_for: Purpose::Test },
    // Another wall clock for one process.
    Program { name: "faketime", package: "faketime", needed_for: Purpose::Test },
    // Runs the unit of `examples/`, in namespaces of its own.
    Program { name: "systemctl", package: "systemd", needed_for: Purpose::Test },
    Program { name: "chromium", package: "chromium", needed_for: Purpose::Test },
    Program { name: "chromedriver", package: "chromium-driver", needed_for: Purpose::Test },
];

/// Load, and what it is measured with.
const FOR_L7_BENCH: &[Program] = &[
    Program { name: "wrk", package: "wrk", needed_for: Purpose::Build },
    Program { name: "h2load", package: "nghttp2-client", needed_for: Purpose::Build },
    Program { name: "openssl", package: "openssl", needed_for: Purpose::Build },
    Program { name: "taskset", package: "util-linux", needed_for: Purpose::Build },
];

/// libFuzzer is written in C++.
const FOR_FUZZING: &[Program] = &[Program { name: "c++", package: "g++", needed_for: Purpose::Build }];

/// Installs the packages whose programs are missing.
pub(super) fn ensure(purpose: Purpose) -> Result<()> {
    provide(PROGRAMS, purpose)
}

pub(super) fn ensure_for_fuzzing() -> Result<()> {
    ensure(Purpose::Build)?;
    provide(FOR_FUZZING, Purpose::Build)
}

pub(super) fn ensure_for_l7_bench() -> Result<()> {
    ensure(Purpose::Build)?;
    provide(FOR_L7_BENCH, Purpose::Build)
}

/// Packages without a program to look for.
pub(super) fn ensure_libraries(packages: &[&str]) -> Result<()> {
    install_missing(&["libraries"], packages, "some seconds")
}

/// Python that can make environments, which Debian packages apart and under no program's name.
pub(super) fn ensure_python() -> Result<()> {
    const PACKAGES: [&str; 2] = ["python3", "python3-venv"];
    let makes_environments = run::find_program("python3").is_some()
        && run::output(Command::new("python3").args(["-c", "import ensurepip"])).is_ok();
    if makes_environments {
        return Ok(());
    }
    install_missing(&["python3 with its module venv"], &PACKAGES, "some seconds")
}

fn provide(programs: &[Program], purpose: Purpose) -> Result<()> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| program.needed_for <= purpose && run::find_program(program.name).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|program| program.name).collect();
    let packages: Vec<_> = missing.iter().flat_map(|program| program.package.split(' ')).collect();
    let about = if purpose >= Purpose::Test { "about a minute" } else { "some seconds" };
    install_missing(&names, &packages, about)
}

fn install_missing(names: &[&str], packages: &[&str], about: &str) -> Result<()> {
    let by_hand = format!("apt-get update && apt-get install -y --no-install-recommends {}", packages.join(" "));
    if run::find_program("apt-get").is_none() {
        bail!("missing programs: {}; install them (on Debian: {by_hand})", names.join(", "));
    }
    if !run::is_root() {
        bail!("missing programs: {}; as root run: {by_hand}", names.join(", "));
    }
    run::timed(&format!("Installing Debian packages: {}", packages.join(", ")), about, || install(packages, &by_hand))
}

fn install(packages: &[&str], by_hand: &str) -> Result<()> {
    let mut install = apt_get();
    install.args(["install", "-y", "--no-install-recommends"]).args(packages);
    // Fresh images come without package lists, and old lists name versions that the mirror no longer has: both look
    // like a failed install, so update only then.
    if run::output(&mut install).is_ok() {
        return Ok(());
    }
    run::output(apt_get().arg("update"))?;
    if let Err(error) = run::output(&mut install) {
        bail!("{error:#}; by hand: {by_hand}");
    }
    Ok(())
}

pub(super) fn apt_get() -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
    apt_get
}

/// Puts the files of packages below `home` without installing them: installing some starts their services.
pub(super) fn unpack(packages: &[&str], home: &Path) -> Result<()> {
    fs::create_dir_all(home).with_context(|| format!("creating {}", home.display()))?;
    let mut download = apt_get();
    download.current_dir(home).args(["-o", "APT::Sandbox::User=root", "download"]).args(packages);
    if run::output(&mut download).is_err() {
        // Old lists name versions that the mirror no longer has.
        run::output(apt_get().arg("update"))?;
        run::output(&mut download)?;
    }
    let archives = fs::read_dir(home)?.flatten().map(|entry| entry.path());
    for archive in archives.filter(|path| path.extension().is_some_and(|extension| extension == "deb")) {
        run::output(Command::new("dpkg").arg("-x").arg(&archive).arg(home))?;
        fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
    }
    Ok(())
}
