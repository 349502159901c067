//! `cargo xtask tidy`: house rules that neither rustc nor clippy knows.

mod edges;
mod sizes;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::paths::Workspace;
use crate::run;

/// One Rust source, by its path from the workspace's root.
struct Source {
    path: PathBuf,
    text: String,
}

/// Something to mend: `path:line: what`.
struct Complaint {
    path: PathBuf,
    line: usize,
    what: String,
}

/// A rule: what is wrong with one source.
type Rule = fn(&Source) -> Vec<Complaint>;

const RULES: &[Rule] = &[sizes::files, sizes::functions, words::loose_ends, words::aya, edges::controller];

pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::find()?;
    let sources = sources(&workspace)?;
    let mut complaints: Vec<_> = sources.iter().flat_map(|source| RULES.iter().flat_map(|rule| rule(source))).collect();
    complaints.extend(changelog(&workspace.root));
    for complaint in &complaints {
        println!("{}:{}: {}", complaint.path.display(), complaint.line, complaint.what);
    }
    if !complaints.is_empty() {
        bail!("{} house rules are broken; the places are above", complaints.len());
    }
    eprintln!("==> Tidy: {} sources keep the house rules", sources.len());
    Ok(())
}

/// Every Rust source that is part of the project, also when not committed yet.
fn sources(workspace: &Workspace) -> Result<Vec<Source>> {
    let mut git = std::process::Command::new("git");
    git.current_dir(&workspace.root).args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"]);
    let listed = match run::output(&mut git) {
        Ok(listed) => listed.lines().map(PathBuf::from).collect(),
        // A tree without git, such as an unpacked archive.
        Err(_) => walk(&workspace.root, Path::new(""))?,
    };
    let present = listed.into_iter().filter(|path| workspace.root.join(path).is_file());
    present.map(|path| read(&workspace.root, path)).collect()
}

fn read(root: &Path, path: PathBuf) -> Result<Source> {
    let text = fs::read_to_string(root.join(&path)).with_context(|| format!("reading {}", path.display()))?;
    Ok(Source { path, text })
}

fn walk(root: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(folder))?.flatten() {
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if path != Path::new("target") {
                found.extend(walk(root, &path)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Users learn from it what changed; an empty one tells them nothing.
fn changelog(root: &Path) -> Option<Complaint> {
    let path = PathBuf::from("CHANGELOG.md");
    let text = fs::read_to_string(root.join(&path)).unwrap_or_default();
    let has_entry = text.lines().any(|line| line.starts_with("- "));
    (!has_entry).then(|| Complaint { path, line: 1, what: "no entry (`- …`) tells users what changed".into() })
}

impl Source {
    fn complain(&self, line: usize, what: impl Into<String>) -> Complaint {
        Complaint { path: self.path.clone(), line, what: what.into() }
    }

    /// Lines with their numbers, from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

#[cfg(test)]
fn complaints_about(rule: Rule, path: &str, text: &str) -> Vec<String> {
    let source = Source { path: path.into(), text: text.into() };
    rule(&source).into_iter().map(|complaint| format!("{}: {}", complaint.line, complaint.what)).collect()
}
