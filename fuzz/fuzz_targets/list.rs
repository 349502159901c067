//! Deny and allow lists: each line is a prefix, a comment or a mistake, and what is a prefix another reader takes too.
#![no_main]

use lb_controller::lists::read_text;
use lb_policy::Network;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    let note = |line, prefix| {
        found.push((line, prefix));
        true
    };
    read_text(text, note, |line, mistake| wrong.push((line, mistake.to_string())));
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    for (line, prefix) in &found {
        assert!(wrong.iter().all(|(other, _)| other != line), "line {line} is both");
        let shown = prefix.to_string();
        let network = Network::parse(&shown).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert!(prefix.contains(prefix.first_address()) && network.contains(prefix.first_address()), "{shown}");
        let mut again = Vec::new();
        read_text(
            shown.as_bytes(),
            |_, prefix| {
                again.push(prefix);
                true
            },
            |_, mistake| panic!("{shown}: {mistake}"),
        );
        assert_eq!(again, [*prefix]);
    }
    for (line, mistake) in &wrong {
        assert!(mistake.len() < 600 && !mistake.contains('\n'), "{mistake:?}");
        let line = lines[*line as usize - 1];
        let Ok(line) = std::str::from_utf8(line) else { continue };
        // The other reader knows neither bare addresses nor comments, and keeps mapped addresses as they are.
        assert!(line.contains("::") || Network::parse(line.trim()).is_err(), "{line:?} was refused: {mistake}");
    }
});
