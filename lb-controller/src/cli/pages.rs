//! `lb-controller pages`: what people will see, before they see it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::check;
use crate::config::PagesConfig;
use crate::failure::Failure;
use crate::stepup::{Preview, previews};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write every page in every language, filled with examples; open index.html in a browser.
    Preview(PreviewArguments),
}

#[derive(Debug, clap::Args)]
struct PreviewArguments {
    /// The configuration file, for its `pages`; default: pages as they are built in.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the pages go; made if it is not there.
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Command::Preview(PreviewArguments { config, output }) = arguments.command;
    let config = config.map(|file| check::load(&file)).transpose()?;
    let pages = config.map(|(config, _)| config.pages).unwrap_or_default();
    let count = write(&pages, &output)?;
    say!("{count} pages written; open {}", output.join("index.html").display());
    Ok(())
}

fn write(pages: &PagesConfig, output: &Path) -> Result<usize, Failure> {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let logo = pages.look.logo.as_ref().map(|logo| (logo_name(logo.content_type), &logo.bytes));
    let previews = previews(pages);
    for Preview { name, language, html } in &previews {
        // Beside the page, since there is no gateway here to ask for it.
        let html = match logo {
            Some((file, _)) => html.replace("/.lb/logo", &format!("../{file}")),
            None => html.clone(),
        };
        save(&output.join(language).join(format!("{name}.html")), html.as_bytes())?;
        by_name.entry(name.clone()).or_default().push(language.clone());
    }
    if let Some((file, bytes)) = logo {
        save(&output.join(file), bytes)?;
    }
    save(&output.join("index.html"), index(&by_name).as_bytes())?;
    Ok(previews.len())
}

fn save(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = file.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}

fn logo_name(content_type: &str) -> &'static str {
    match content_type {
        "image/png" => "logo.png",
        "image/webp" => "logo.webp",
        _ => "logo.svg",
    }
}

/// Names of pages and languages need no escaping: both are ours, or were checked.
fn index(by_name: &BTreeMap<String, Vec<String>>) -> String {
    let mut html = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Pages</title>\n".to_owned();
    html.push_str(
        "<style>body { font: 1rem/1.7 system-ui; margin: 2rem } td { padding-right: 1.5rem }</style><table>\n",
    );
    for (name, languages) in by_name {
        let _ = write!(html, "<tr><td>{name}</td>");
        for language in languages {
            let _ = write!(html, "<td><a href=\"{language}/{name}.html\">{language}</a></td>");
        }
        html.push_str("</tr>\n");
    }
    html + "</table></html>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_written_and_listed() {
        let folder = tempfile::tempdir().unwrap();
        let count = write(&PagesConfig::default(), folder.path()).unwrap();
        let index = fs::read_to_string(folder.path().join("index.html")).unwrap();
        assert_eq!(index.matches("href=").count(), count);
        for page in ["en/login.html", "de/challenge-totp.html", "fr/recovery-codes.html"] {
            assert!(index.contains(page), "{page}");
            assert!(folder.path().join(page).is_file(), "{page}");
        }
    }
}
