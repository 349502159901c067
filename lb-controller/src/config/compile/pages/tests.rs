use std::fs;

use super::super::compile as whole;
use super::*;
use crate::config::{Config, Diagnostics};

/// Names, and what is in them.
type Files = [(&'static str, &'static [u8])];

fn compiled(pages: &str, files: &Files) -> Result<Config, Diagnostics> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let text = format!(
        "pools: [{{name: web, backends: [\"127.0.0.1:1\"]}}]\nroutes: [{{path: /**, pool: web}}]\npages:\n{pages}\n"
    );
    whole("lb.yaml", &text, folder.path())
}

#[test]
fn pages_become_the_operators_own() {
    let pages = "  name: The shop
  logo: logo.svg
  accent: {light: \"#8a2be2\", dark: \"#d0b0ff\"}
  font: '\"Inter\", system-ui'
  language: de
  texts: texts.yaml";
    let files: &Files = &[("logo.svg", b"<svg/>"), ("texts.yaml", "login: {de: Grüezi}".as_bytes())];
    let config = compiled(pages, files).unwrap();
    let PagesConfig { texts, look } = &*config.pages;
    assert_eq!(look.name.as_deref(), Some("The shop"));
    assert_eq!(look.logo.as_ref().unwrap().content_type, "image/svg+xml");
    assert!(look.css.contains("--accent: #8a2be2;") && look.css.contains("font-family: \"Inter\", system-ui;"));
    assert_eq!(texts.default_texts().login().to_string(), "Grüezi");
    assert_eq!(config.taken_in.len(), 2, "a change of either file is a change of the configuration");
    assert!(compiled("  name: x", &[]).unwrap().pages.look.css.is_empty());
}

#[test]
fn each_mistake_is_told_with_what_to_do() {
    let rows: &[(&str, &Files, &str)] = &[
        ("  logo: none.svg", &[], "cannot be read"),
        ("  logo: logo.gif", &[("logo.gif", b"GIF89a")], "SVG, PNG and WebP are taken"),
        ("  logo: logo.svg", &[("logo.svg", &[b' '; 70_000])], "at most 65536 are read"),
        ("  accent: {light: \"#ffff00\"}", &[], "the nearest that has it is"),
        ("  accent: {lite: \"#000000\"}", &[], "known: light, dark"),
        ("  font: 'x; } body { display: none'", &[], "is no list of fonts"),
        ("  font: 'url(https://evil.example/font)'", &[], "is no list of fonts"),
        ("  language: it", &[], "there are: de, en, fr"),
        ("  texts: t.yaml", &[("t.yaml", b"logn: {en: x}")], "did you mean `login`?"),
        ("  texts: t.yaml", &[("t.yaml", b"login: {it: x}")], "more texts are not as they must be"),
        ("  texts: t.yaml", &[("t.yaml", b"login: [x]")], "write `key: {en: text, de: text}`"),
    ];
    for (pages, files, told) in rows {
        let refused = compiled(pages, files).unwrap_err().to_string();
        assert!(refused.contains(told), "{pages}: {refused}");
    }
}
