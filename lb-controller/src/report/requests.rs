//! Requests as they end, for people who look.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A line of `tail`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TailLine {
    /// So many requests that were asked for came faster than they were read.
    Missed {
        missed: u64,
    },
    Request(Box<TailedRequest>),
}

/// One request, when its response had been sent or given up; like the access log's line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailedRequest {
    /// RFC 3339, in UTC.
    pub at: String,
    pub request_id: String,
    pub client: IpAddr,
    pub method: String,
    pub protocol: String,
    pub host: String,
    /// Without query: it may hold secrets.
    pub path: String,
    pub status: u16,
    /// Of the response's body.
    pub bytes: u64,
    pub duration_us: u64,
    /// Its label; `None`: it came to no route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why the response broke off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where requests are traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// Which requests are wanted; what is left out wants all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TailFilter {
    /// Its label.
    pub route: Option<String>,
    pub status: Option<StatusSet>,
    pub decision: Option<String>,
    pub client: Option<IpNet>,
    pub method: Option<String>,
    pub host: Option<String>,
    /// What paths begin with.
    pub path: Option<String>,
    pub min_duration_us: Option<u64>,
}

/// What a filter goes by, of a request that ended.
#[derive(Clone, Copy, Debug)]
pub struct Tailed<'a> {
    pub route: Option<&'a str>,
    pub status: u16,
    pub decision: Option<&'a str>,
    pub client: IpAddr,
    pub method: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    pub duration_us: u64,
}

impl TailFilter {
    pub fn wants(&self, request: &Tailed<'_>) -> bool {
        let is = |wanted: &Option<String>, it: Option<&str>| wanted.as_deref().is_none_or(|wanted| it == Some(wanted));
        is(&self.route, request.route)
            && is(&self.decision, request.decision)
            && is(&self.method, Some(request.method))
            && self.host.as_deref().is_none_or(|host| host.eq_ignore_ascii_case(without_port(request.host)))
            && self.path.as_deref().is_none_or(|start| request.path.starts_with(start))
            && self.status.as_ref().is_none_or(|set| set.has(request.status))
            && self.client.is_none_or(|network| network.contains(&request.client))
            && self.min_duration_us.is_none_or(|least| request.duration_us >= least)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Statuses as people write them: `404`, `5xx`, `400-499`, or several of these with commas between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StatusSet(Vec<(u16, u16)>);

impl StatusSet {
    pub fn has(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl FromStr for StatusSet {
    type Err = String;

    fn from_str(text: &str) -> Result<StatusSet, String> {
        let wrong = || format!("`{text}` names no statuses; write 404, 5xx, 400-499, or several with commas between");
        let status = |text: &str| {
            let is_plain = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|status| is_plain && (100..=999).contains(status))
        };
        let part = |part: &str| match (part.split_once('-'), part.strip_suffix("xx")) {
            (Some((first, last)), _) => Some((status(first)?, status(last)?)).filter(|(first, last)| first <= last),
            (None, Some(class)) => {
                let first = status(&format!("{class}00"))?;
                Some((first, first + 99))
            }
            (None, None) => status(part).map(|status| (status, status)),
        };
        let parts: Option<Vec<_>> = text.split(',').map(|text| part(text.trim())).collect();
        parts.map(StatusSet).ok_or_else(wrong)
    }
}

impl TryFrom<String> for StatusSet {
    type Error = String;

    fn try_from(text: String) -> Result<StatusSet, String> {
        text.parse()
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{first}-{last}")?;
        }
        Ok(())
    }
}

impl From<StatusSet> for String {
    fn from(set: StatusSet) -> String {
        set.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_as_people_write_them_and_come_over_the_wire_the_same() {
        for (text, has, has_not) in [
            ("404", &[404][..], &[403, 405][..]),
            ("5xx", &[500, 599], &[499, 600]),
            ("401, 4xx,500-503", &[400, 401, 499, 500, 503], &[399, 504]),
        ] {
            let set: StatusSet = text.parse().unwrap();
            let sent: StatusSet = serde_json::from_str(&serde_json::to_string(&set).unwrap()).unwrap();
            assert_eq!(sent, set, "{text}");
            assert!(has.iter().all(|status| set.has(*status)), "{text}");
            assert!(!has_not.iter().any(|status| set.has(*status)), "{text}");
        }
        for text in ["", "99", "1000", "xx", "5x", "500-400", "-1", "40 4", "500-", "٤٠٤"] {
            assert!(text.parse::<StatusSet>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_filter_wants_what_meets_all_it_names() {
        let request = Tailed {
            route: Some("*/**"),
            status: 503,
            decision: Some("allow"),
            client: "192.0.2.7".parse().unwrap(),
            method: "GET",
            host: "Shop.example:8443",
            path: "/cart/1",
            duration_us: 1_500,
        };
        for (filter, wants) in [
            ("{}", true),
            (r#"{"status": "5xx", "route": "*/**", "decision": "allow", "method": "GET"}"#, true),
            (r#"{"host": "shop.example", "path": "/cart", "client": "192.0.2.0/24", "min_duration_us": 1500}"#, true),
            (r#"{"status": "5xx", "route": "*/open"}"#, false),
            (r#"{"status": "4xx"}"#, false),
            (r#"{"decision": "deny"}"#, false),
            (r#"{"client": "198.51.100.0/24"}"#, false),
            (r#"{"host": "example"}"#, false),
            (r#"{"path": "/carts"}"#, false),
            (r#"{"min_duration_us": 1501}"#, false),
        ] {
            let filter: TailFilter = serde_json::from_str(filter).unwrap();
            assert_eq!(filter.wants(&request), wants, "{filter:?}");
        }
        assert!(
            serde_json::from_str::<TailFilter>(r#"{"user": "x"}"#).is_err(),
            "a filter that is unknown filters nothing"
        );
    }
}
