//! A developer's key, made and used by the real `ssh-keygen`.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

#[derive(Debug)]
pub struct SshKey {
    folder: TempDir,
    /// The line of the `.pub` file.
    pub public: String,
}

impl SshKey {
    pub fn new() -> Result<SshKey> {
        let folder = TempDir::new()?;
        run(&folder, &["-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f", "key"])?;
        let public = fs::read_to_string(folder.path().join("key.pub"))?.trim().to_owned();
        Ok(SshKey { folder, public })
    }

    /// The armored signature over `text`.
    pub fn sign(&self, text: &str) -> Result<String> {
        fs::write(self.folder.path().join("text"), text)?;
        let _ = fs::remove_file(self.folder.path().join("text.sig"));
        run(&self.folder, &["-q", "-Y", "sign", "-n", "step-up@lb", "-f", "key", "text"])?;
        Ok(fs::read_to_string(self.folder.path().join("text.sig"))?)
    }
}

fn run(folder: &TempDir, arguments: &[&str]) -> Result<()> {
    let output = Command::new("ssh-keygen").current_dir(folder).args(arguments).output();
    let output = output.context("ssh-keygen is not installed (Debian: openssh-client)")?;
    ensure!(output.status.success(), "ssh-keygen failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
