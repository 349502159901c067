//! What a controller tells Prometheus, to be compared before and after.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Every series, as `name{labels}`, and its value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scraped(BTreeMap<String, f64>);

impl Scraped {
    /// Asks whoever serves metrics at `address`.
    pub fn from(address: SocketAddr) -> Result<Scraped> {
        Ok(Scraped::read(&text_from(address)?))
    }

    fn read(text: &str) -> Scraped {
        let series = text.lines().filter(|line| line.starts_with("lb_"));
        let value = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Scraped(series.filter_map(value).collect())
    }

    /// The value of one series, written as Prometheus does; 0 when it is not there.
    pub fn value(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or_default()
    }

    /// The sum over all series of one name, whatever their labels.
    pub fn sum(&self, name: &str) -> f64 {
        let of_name =
            |series: &str| series == name || series.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        self.sum_of(of_name)
    }

    /// The sum over all series whose text `holds`.
    pub fn sum_of(&self, holds: impl Fn(&str) -> bool) -> f64 {
        self.0.iter().filter(|(series, _)| holds(series)).map(|(_, value)| value).sum()
    }

    /// The series whose names begin with one of `prefixes` that are not what they were in `before`, and by how much.
    pub fn moved_since(&self, before: &Scraped, prefixes: &[&str]) -> BTreeMap<String, f64> {
        let wanted = self.0.iter().filter(|(series, _)| prefixes.iter().any(|prefix| series.starts_with(prefix)));
        let moved = wanted.map(|(series, value)| (series.clone(), value - before.value(series)));
        moved.filter(|(_, by)| *by != 0.0).collect()
    }
}

/// All that whoever serves metrics at `address` says, in the OpenMetrics text format.
pub fn text_from(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address).context("metrics are not served")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    ensure!(answer.contains("\n# EOF"), "the answer is not whole: {answer}");
    Ok(answer)
}
