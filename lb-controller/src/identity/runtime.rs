//! The thread on which issuers are asked. Connections to them outlive the worker that wanted them.

use std::io;

use tokio::runtime::{Builder, Handle};

/// Starts the thread; it ends with the process.
pub fn start() -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("identity".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}
