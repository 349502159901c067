//! Where spans of requests go.

use std::path::Path;
use std::time::Duration;

use http::uri::{PathAndQuery, Uri};
use http::{HeaderName, HeaderValue};

use super::super::section::{Complaint, Section};
use super::super::{EndpointConfig, TracingConfig, values};
use super::factors::{file, secret_file};

/// Where collectors take traces (OTLP 1.x).
const USUAL_PATH: &str = "/v1/traces";
const DEFAULT_SERVICE_NAME: &str = "lb";
const DEFAULT_RATIO: f64 = 0.01;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn compile(config: &Section<'_>, folder: &Path) -> Option<TracingConfig> {
    let section = Section::open("`tracing`", config.get("tracing")?, config.problems)?;
    let url = section.required_value("otlp", collector);
    let ca = section.value("ca", |text| file(folder, text));
    let timeouts = Duration::from_secs(1)..=Duration::from_secs(60);
    let timeout = section.value("timeout", values::duration(timeouts)).unwrap_or(DEFAULT_TIMEOUT);
    let headers = section.value("headers_file", |text| headers(&secret_file(folder, text, 1)?));
    let tracing = TracingConfig {
        endpoint: EndpointConfig { url: url.unwrap_or_default(), secret: Default::default(), timeout, ca },
        headers: headers.unwrap_or_default(),
        service_name: section.value("service_name", service_name).unwrap_or_else(|| DEFAULT_SERVICE_NAME.to_owned()),
        ratio: section.value("sample", ratio).unwrap_or(DEFAULT_RATIO),
        continue_from: section.values("continue_from", values::network),
    };
    section.finish();
    Some(tracing)
}

fn collector(text: &str) -> Result<Uri, Complaint> {
    let complaint = |message: &str| Complaint::new(message, "write `http://127.0.0.1:4318`, or `https://host/path`");
    let url: Uri = text.parse().map_err(|_| complaint("this is no URL"))?;
    let mut parts = url.into_parts();
    let authority = parts.authority.as_ref().map(|authority| authority.as_str());
    let is_http = parts.scheme.as_ref().is_some_and(|scheme| matches!(scheme.as_str(), "http" | "https"));
    if !is_http || authority.is_none_or(str::is_empty) {
        return Err(complaint("this is no URL of a collector"));
    }
    if authority.is_some_and(|authority| authority.contains('@')) {
        return Err(complaint("a URL with a password in it ends up in logs; see `headers_file`"));
    }
    if parts.path_and_query.as_ref().is_none_or(|path| path == "/") {
        parts.path_and_query = Some(PathAndQuery::from_static(USUAL_PATH));
    }
    Uri::from_parts(parts).map_err(|_| complaint("this is no URL"))
}

/// `name: value` lines, as for curl.
fn headers(bytes: &[u8]) -> Result<Vec<(HeaderName, HeaderValue)>, Complaint> {
    let complaint =
        || Complaint::new("the file has a line that is no header", "write lines such as `authorization: Bearer …`");
    let text = std::str::from_utf8(bytes).map_err(|_| complaint())?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let mut value = HeaderValue::try_from(value.trim()).ok().filter(|value| value.to_str().is_ok())?;
        value.set_sensitive(true);
        Some((HeaderName::try_from(name.trim()).ok()?, value))
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| header(line).ok_or_else(complaint)).collect()
}

fn service_name(text: &str) -> Result<String, Complaint> {
    if text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
        return Err("1 to 128 bytes of text without control characters are meant here".into());
    }
    Ok(text.to_owned())
}

/// `1/100`, or `5%`.
fn ratio(text: &str) -> Result<f64, Complaint> {
    if let Some(number) = text.strip_prefix("1/") {
        return values::number(1..=1_000_000)(number).map(|number| 1.0 / f64::from(number));
    }
    let complaint = || Complaint::new(format!("`{text}` is no share of traces"), "write 1/100, or 5%");
    values::percent(text).map(|percent| f64::from(percent) / 100.0).map_err(|_| complaint())
}

#[cfg(test)]
mod tests {
    use super::super::compile as compile_all;
    use super::*;

    const REST: &str = "\npools: {name: shop, backends: \"10.0.0.1:80\"}\nroutes: {path: /**, pool: shop}\n";

    fn read(text: &str, folder: &Path) -> Result<TracingConfig, String> {
        let config = compile_all("lb.yaml", &format!("tracing: {text}{REST}"), folder);
        config.map(|config| config.tracing.unwrap()).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn a_collector_has_the_usual_path_unless_it_names_one_and_secrets_stay_out_of_logs() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("headers"), "authorization: Bearer s3cret\n\nx-team: edge\n").unwrap();
        for (otlp, url) in [
            ("http://10.0.0.7:4318", "http://10.0.0.7:4318/v1/traces"),
            ("https://collector.example/", "https://collector.example/v1/traces"),
            ("https://collector.example/otlp/traces", "https://collector.example/otlp/traces"),
        ] {
            let text = format!("{{otlp: \"{otlp}\", headers_file: headers, sample: 5%, continue_from: 10.0.0.0/8}}");
            let config = read(&text, folder.path()).unwrap();
            assert_eq!(config.endpoint.url.to_string(), url);
            assert_eq!((config.headers.len(), config.ratio, config.continue_from.len()), (2, 0.05, 1));
            assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
        }
        let least = read("{otlp: \"http://127.0.0.1:4318\"}", folder.path()).unwrap();
        assert_eq!((least.ratio, least.service_name.as_str(), least.continue_from.len()), (0.01, "lb", 0));
    }

    #[test]
    fn a_mistake_is_told_with_what_to_write() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("headers"), "no header\n").unwrap();
        for (text, told) in [
            ("{sample: 1%}", "needs `otlp`"),
            ("{otlp: \"grpc://127.0.0.1:4317\"}", "no URL of a collector"),
            ("{otlp: \"127.0.0.1:4318\"}", "http://127.0.0.1:4318"),
            ("{otlp: \"http://me:secret@127.0.0.1\"}", "headers_file"),
            ("{otlp: \"http://127.0.0.1:4318\", sample: 0.5}", "1/100"),
            ("{otlp: \"http://127.0.0.1:4318\", headers_file: headers}", "authorization"),
            ("{otlp: \"http://127.0.0.1:4318\", continue_from: everybody}", "no address block"),
        ] {
            let wrong = read(text, folder.path()).unwrap_err();
            assert!(wrong.contains(told), "{text}: {wrong}");
        }
    }
}
