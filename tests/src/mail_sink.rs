//! A mail server that keeps what it is sent: PyPI's aiosmtpd.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::edge::free_address;

const STARTS_WITHIN: Duration = Duration::from_secs(20);
const MAIL_ARRIVES_WITHIN: Duration = Duration::from_secs(10);
/// What aiosmtpd prints around each message.
const END_OF_MESSAGE: &str = "------------ END MESSAGE ------------";

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct MailSink {
    pub address: SocketAddr,
    said: Arc<Mutex<String>>,
    process: Child,
}

impl MailSink {
    /// What is lacking to start one, if anything.
    pub fn lacking() -> Option<&'static str> {
        python().is_none().then_some("needs a mail server; run `cargo xtask test`")
    }

    pub fn start() -> Result<MailSink> {
        let python = python().context("LB_SMTP_PYTHON is not set; run the tests with `cargo xtask test`")?;
        let address = free_address()?;
        let mut process = Command::new(python)
            .args(["-u", "-m", "aiosmtpd", "-n", "-l", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting aiosmtpd")?;
        let output = process.stdout.take().context("a pipe was asked for")?;
        let said: Arc<Mutex<String>> = Arc::default();
        let listener = said.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut said = listener.lock().expect("no holder of this lock panics");
                said.push_str(&line);
                said.push('\n');
            }
        });
        let sink = MailSink { address, said, process };
        let deadline = Instant::now() + STARTS_WITHIN;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                bail!("aiosmtpd does not listen on {address}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(sink)
    }

    /// Waits for a whole mail that has `part` in it; of several the last.
    pub async fn mail_with(&self, part: &str) -> Result<String> {
        let deadline = Instant::now() + MAIL_ARRIVES_WITHIN;
        loop {
            let said = self.said.lock().expect("no holder of this lock panics").clone();
            let mut mails: Vec<&str> = said.split(END_OF_MESSAGE).collect();
            // What follows the last end is not whole yet.
            mails.pop();
            if let Some(mail) = mails.into_iter().rev().find(|mail| mail.contains(part)) {
                return Ok(mail.to_owned());
            }
            if Instant::now() > deadline {
                bail!("no mail with {part:?} came; these did:\n{said}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for MailSink {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn python() -> Option<PathBuf> {
    std::env::var_os("LB_SMTP_PYTHON").map(PathBuf::from)
}
