//! The unit of `examples/lb.service`, as systemd runs it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::level;
use lb_tests::service_manager::ServiceManager;

const HAPPENS_WITHIN: Duration = Duration::from_secs(60);

fn eventually(manager: &ServiceManager, what: &str, is_so: impl Fn(&ServiceManager) -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + HAPPENS_WITHIN;
    while !is_so(manager)? {
        let status = manager.run(&["systemctl", "show", "lb", "--property", "ActiveState,SubState,MainPID,NRestarts"]);
        ensure!(Instant::now() < deadline, "not within {HAPPENS_WITHIN:?}: {what}; {status:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn is_active(manager: &ServiceManager) -> Result<bool> {
    Ok(manager.property("ActiveState")? == "active")
}

#[test]
fn systemd_starts_the_unit_exchanges_its_process_restarts_it_and_stops_it_with_xdp_in_force() -> Result<()> {
    let Some(controller) = level::controller() else { return Ok(()) };
    if level::is_skipped("service manager", ServiceManager::lacking()) {
        return Ok(());
    }
    let manager = ServiceManager::start(&controller)?;
    eventually(&manager, "it says that it is ready", is_active)?;
    let main = || manager.property("MainPID");
    let first = main()?;
    let has_xdp = || manager.run(&["ip", "-details", "link", "show", "edge"]).map(|shown| shown.contains("prog/xdp"));
    ensure!(has_xdp()?, "no program is attached");

    manager.run(&["systemctl", "reload", "lb"])?;
    let second = main()?;
    ensure!(second != first && is_active(&manager)?, "{first} {second}");
    let status: serde_json::Value = serde_json::from_str(&manager.run(&["lb-controller", "status", "--json"])?)?;
    ensure!(status["controller"]["pid"] == second.parse::<u64>()?, "{second} is not {status}");

    // A program that does not start: the reload fails, and nothing else does.
    manager.run(&["mv", "/usr/local/bin/lb-controller", "/usr/local/bin/good"])?;
    manager.run(&["cp", "/bin/false", "/usr/local/bin/lb-controller"])?;
    ensure!(manager.run(&["systemctl", "reload", "lb"]).is_err(), "a broken program was taken");
    manager.run(&["mv", "/usr/local/bin/good", "/usr/local/bin/lb-controller"])?;
    ensure!(main()? == second && is_active(&manager)?, "{second} {}", main()?);

    manager.run(&["kill", "-9", &second])?;
    let has_restarted = |manager: &ServiceManager| Ok(manager.property("NRestarts")? == "1" && is_active(manager)?);
    eventually(&manager, "it is started again", has_restarted)?;
    ensure!(main()? != second, "{second} was killed");
    ensure!(has_xdp()?, "a crash has detached the program");

    manager.run(&["systemctl", "stop", "lb"])?;
    let result = (manager.property("ActiveState")?, manager.property("Result")?);
    ensure!(result == ("inactive".to_owned(), "success".to_owned()), "{result:?}");
    ensure!(has_xdp()?, "a stop has detached the program");
    manager.run(&["lb-controller", "unload"])?;
    ensure!(!has_xdp()?, "an unload has not");
    Ok(())
}
