use super::*;

#[test]
fn a_name_survives_the_round_trip_and_its_bounds_are_kept() {
    let longest = "n".repeat(Name::MAX_BYTES);
    for text in ["web", "ünïcode", longest.as_str()] {
        assert_eq!(Name::new(text).expect("fits").as_str(), Some(text));
    }
    assert_eq!(Name::new(""), None);
    assert_eq!(Name::new(&"n".repeat(Name::MAX_BYTES + 1)), None);
    assert_eq!(Name { bytes: [0; 64] }.as_str(), None);
}

#[test]
fn a_backend_state_survives_the_round_trip() {
    for state in (1..=3).filter_map(BackendState::from_number) {
        assert_eq!(BackendState::from_number(state.to_number()), Some(state));
    }
    assert_eq!([0, 4].map(BackendState::from_number), [None, None]);
}
