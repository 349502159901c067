//! What must hold of a client's trace context for any bytes; fuzz targets and tests call it.

use super::context::{Parent, is_tracestate};

/// Whether another reader, which takes the text apart at its separators, would read `bytes` otherwise, as `traceparent` and as
/// `tracestate`; and whether what is passed on is read again as the same. Panics if so.
pub fn a_trace_context_is_read_as_another_reader_reads_it(bytes: &[u8]) {
    let ours = Parent::parse(bytes);
    // What is no text may stand behind what is read of a later version, and nowhere else.
    let text = String::from_utf8_lossy(bytes);
    let other = other_parent(&text);
    assert_eq!(ours.map(|parent| (parent.trace.to_string(), parent.is_sampled)), other, "{text:?}");
    if let Some(parent) = ours {
        let passed_on = parent.to_text();
        assert_eq!(Parent::parse(&passed_on), Some(parent));
        assert_eq!(passed_on[3..53], bytes[3..53], "trace and span go on as they came");
    }
    let is_other_state = is_other_state(&text);
    assert_eq!(is_tracestate([bytes]), is_other_state, "{text:?}");
    if let Some((first, second)) = bytes.iter().position(|byte| *byte == b',').map(|at| bytes.split_at(at)) {
        assert_eq!(is_tracestate([first, &second[1..]]), is_other_state, "one header or two is the same list");
    }
}

fn other_parent(text: &str) -> Option<(String, bool)> {
    let mut parts = text.splitn(5, '-');
    let [version, trace, span, flags] = [(); 4].map(|()| parts.next());
    let (version, trace, span, flags) = (version?, trace?, span?, flags?);
    let is_hexadecimal = |text: &str, length: usize| {
        text.len() == length && text.chars().all(|char| char.is_ascii_hexdigit() && !char.is_ascii_uppercase())
    };
    let is_good = is_hexadecimal(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && is_hexadecimal(trace, 32)
        && is_hexadecimal(span, 16)
        && is_hexadecimal(flags, 2)
        && trace.chars().any(|char| char != '0')
        && span.chars().any(|char| char != '0');
    let flags = u8::from_str_radix(flags, 16).ok().filter(|_| is_good)?;
    Some((trace.to_owned(), flags % 2 == 1))
}

fn is_other_state<'a>(text: &'a str) -> bool {
    let members = text.split(',').map(|member| member.trim_matches(|char: char| char.is_ascii_whitespace()));
    let members: Vec<&'a str> = members.filter(|member| !member.is_empty()).collect();
    let mut keys = std::collections::BTreeSet::new();
    let mut is_member = |member: &'a str| {
        let parts: Vec<&'a str> = member.split('=').collect();
        let [key, value] = parts[..] else { return false };
        keys.insert(key)
            && (1..=256).contains(&key.len())
            && (1..=256).contains(&value.len())
            && !key.starts_with(['_', '-', '*', '/', '@'])
            && key.chars().all(|char| matches!(char, 'a'..='z' | '0'..='9' | '_' | '-' | '*' | '/' | '@'))
            && value.chars().all(|char| (' '..='~').contains(&char))
    };
    members.len() <= 32 && members.into_iter().all(&mut is_member)
}
