//! The load of `cargo xtask train`: what a controller that counts its branches is asked.

use std::path::Path;

use anyhow::Result;

use super::load::wrk;
use super::peers::{self, OURS, Variant};
use super::{Home, cases};
use crate::paths::Workspace;
use crate::run;

/// It takes a while to count. Every branch of a request is taken some thousand times in one of them.
const SECONDS: u32 = 5;
const MANY_ROUTES: u32 = 1_000;
const MANY_BACKENDS: u32 = 16;
const PORT: u16 = 18_490;

/// `workspace` is where the controller that counts was built; what it counts goes into files below `counts`.
pub(crate) fn run(workspace: &Workspace, counts: &Path) -> Result<()> {
    let home = Home::make(workspace.clone())?;
    let (_backend, _direct) = (peers::backend(&home)?, peers::in_place_of_a_proxy(&home)?);
    // One file of each process, whatever else counts is of no use.
    let file = counts.join("%p.profraw").display().to_string();
    let counting = |variant: Variant| Variant { counts: Some(file.clone()), ..variant }.start(workspace, &home);
    run::timed("Asking what is asked most", "half a minute", || {
        let plain = counting(Variant::plain(&home, OURS, PORT))?;
        cases::ALL.iter().try_for_each(|case| case.measure(&home, &plain, SECONDS).map(drop))
    })?;
    run::timed("With many routes and backends", "some seconds", || {
        let plain = Variant::plain(&home, OURS, PORT + 1);
        let many = counting(Variant { name: "many", routes: MANY_ROUTES, backends: MANY_BACKENDS, ..plain })?;
        for path in ["/part7/items/1k", "/1k?page=2"] {
            // Not all are there: answers of backends that are no 2xx are answers too.
            let _ = wrk(&home, &format!("https://127.0.0.1:{}{path}", many.port), 16, SECONDS, &["Host: h7.example"]);
        }
        Ok(())
    })
}
