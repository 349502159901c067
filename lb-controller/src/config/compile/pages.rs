//! The `pages` section: name, logo, colours, font and texts of the gateway's own pages.

mod colour;

use std::fmt::Write;
use std::path::Path;

use bytes::Bytes;

use super::super::TakenIn;
use super::super::pages::{Logo, Look, PagesConfig};
use super::super::section::{Complaint, Section};
use super::path_in;
use crate::texts::{Catalogue, ENGLISH, Source, read};
use colour::{Colour, Ground};

/// Every page loads it.
const MOST_LOGO_BYTES: u64 = 64 * 1024;
const MOST_TEXTS_BYTES: u64 = 1024 * 1024;
const LONGEST_NAME: usize = 64;
const LONGEST_FONT: usize = 200;

/// Also what files were read.
pub(super) fn compile(config: &Section<'_>, folder: &Path) -> (PagesConfig, Vec<TakenIn>) {
    let mut files = Vec::new();
    let Some(section) = config.get("pages").and_then(|node| Section::open("`pages`", node, config.problems)) else {
        return (PagesConfig::default(), files);
    };
    let name = section.value("name", name);
    let logo = section.value("logo", |text| {
        let file = path_in(folder, text)?;
        files.push(TakenIn::now(&file));
        logo(&file)
    });
    let mut css = String::new();
    if let Some(accent) = section.get("accent").and_then(|node| Section::open("`accent`", node, section.problems)) {
        let light = accent.value("light", |text| Colour::readable(text, Ground::Light));
        let dark = accent.value("dark", |text| Colour::readable(text, Ground::Dark));
        accent.finish();
        // Writing to a String cannot fail.
        let _ = light.map(|colour| writeln!(css, ":root {{ {} }}", colour.accent(Ground::Light)));
        let _ = dark.map(|colour| {
            let accent = colour.accent(Ground::Dark);
            writeln!(css, "@media (prefers-color-scheme: dark) {{ :root {{ {accent} }} }}")
        });
    }
    if let Some(font) = section.value("font", font) {
        let _ = writeln!(css, "body {{ font-family: {font}; }}");
    }
    let texts = texts(&section, folder, &mut files);
    section.finish();
    (PagesConfig { texts: texts.unwrap_or_default(), look: Look { name, logo, css } }, files)
}

fn texts(section: &Section<'_>, folder: &Path, files: &mut Vec<TakenIn>) -> Option<Catalogue> {
    let language = section.value("language", |text| Ok(text.to_ascii_lowercase()));
    let own = section.value("texts", |text| {
        let file = path_in(folder, text)?;
        files.push(TakenIn::now(&file));
        source(&file)
    });
    let catalogue = Catalogue::with(&own.unwrap_or_default(), language.as_deref().unwrap_or(ENGLISH));
    let problems = match catalogue {
        Ok(catalogue) => return Some(catalogue),
        Err(problems) => problems,
    };
    // What is wrong with the texts is wrong at the key that names their file, or else their language.
    if let Some(node) = section.get("texts").or_else(|| section.get("language")) {
        const MOST: usize = 10;
        let more = problems.len().saturating_sub(MOST);
        for problem in problems.iter().take(MOST) {
            section.problems.report(&node.place, problem.clone());
        }
        if more > 0 {
            section.problems.report(&node.place, format!("{more} more texts are not as they must be"));
        }
    }
    None
}

fn source(file: &Path) -> Result<Source, Complaint> {
    let bytes = read_file(file, MOST_TEXTS_BYTES)?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", file.display()))?;
    read(&text).map_err(|problem| {
        let help = "write `key: {en: text, de: text}`";
        Complaint::new(format!("{}: {problem}", file.display()), help)
    })
}

fn read_file(file: &Path, most_bytes: u64) -> Result<Vec<u8>, Complaint> {
    let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", file.display());
    let bytes = std::fs::metadata(file).map_err(unreadable)?.len();
    if bytes > most_bytes {
        return Err(format!("{} has {bytes} bytes; at most {most_bytes} are read", file.display()).into());
    }
    Ok(std::fs::read(file).map_err(unreadable)?)
}

/// What a browser takes it for is told by its first bytes, not by its name.
fn logo(file: &Path) -> Result<Logo, Complaint> {
    let bytes = read_file(file, MOST_LOGO_BYTES)?;
    let begins_svg = |text: &str| text.trim_start().starts_with("<svg") || text.trim_start().starts_with("<?xml");
    let content_type = match &*bytes {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        text if str::from_utf8(text).is_ok_and(begins_svg) => "image/svg+xml",
        _ => return Err(Complaint::new(format!("{} is no picture", file.display()), "SVG, PNG and WebP are taken")),
    };
    Ok(Logo { content_type, bytes: Bytes::from(bytes) })
}

fn name(text: &str) -> Result<String, Complaint> {
    let fits = !text.trim().is_empty() && text.chars().count() <= LONGEST_NAME && !text.contains(char::is_control);
    if fits { Ok(text.trim().to_owned()) } else { Err(format!("a name has 1 to {LONGEST_NAME} characters").into()) }
}

/// A list of families as in CSS, in which nothing else can be said.
fn font(text: &str) -> Result<String, Complaint> {
    let is_family = |family: &str| {
        let family = family.trim();
        let quoted = family.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let bare = quoted.unwrap_or(family);
        !bare.is_empty() && bare.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'))
    };
    match text.len() <= LONGEST_FONT && text.split(',').all(is_family) {
        true => Ok(text.trim().to_owned()),
        false => Err(Complaint::new(
            format!("`{text}` is no list of fonts"),
            "fonts of the reader's device, as in '\"Inter\", system-ui, sans-serif'; none is loaded",
        )),
    }
}

#[cfg(test)]
mod tests;
