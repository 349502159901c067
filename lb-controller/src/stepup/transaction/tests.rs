use super::*;

const SECRET: &str = "the cookie's value";

fn transaction(login: RandomId, expires_at: u64) -> Transaction {
    Transaction {
        login,
        user: login.to_string(),
        device_known: false,
        secret_hash: hash_secret(SECRET),
        opened_at: 0,
        expires_at,
        request: BoundRequest {
            method: http::Method::POST,
            authority: "shop.example".to_owned(),
            target: "/refunds".to_owned(),
            headers_sha256: [0; 32],
            body_sha256: None,
        },
        shown: Vec::new(),
        unmet: Vec::new(),
        terms: Terms { acr: "urn:lb:acr:2".to_owned(), max_age_seconds: None },
        ways: vec![vec![Method::Totp]],
        proved: Vec::new(),
        tries_left: TRIES,
        trips_left: TRIPS,
        nonce: [0; 32],
        onward: Onward::Retry,
    }
}

fn opened(expires_at: u64) -> (Transactions, RandomId, RandomId) {
    let (transactions, id, login) = (Transactions::default(), RandomId::new(), RandomId::new());
    transactions.open(id, transaction(login, expires_at), 0).unwrap();
    (transactions, id, login)
}

const PROOF: ProvedFactor = ProvedFactor::ordinary(Method::Totp, 10);

#[test]
fn a_transaction_is_there_only_for_its_own_login_in_its_own_browser_in_time() {
    let (transactions, id, login) = opened(600);
    let rows = [
        ("its owner", login, Some(SECRET), 599, None),
        ("another login", RandomId::new(), Some(SECRET), 10, Some(Refused::NotYours)),
        ("another browser", login, Some("other"), 10, Some(Refused::NotYours)),
        ("no cookie", login, None, 10, Some(Refused::NotYours)),
        ("too late", login, Some(SECRET), 600, Some(Refused::Gone)),
    ];
    for (name, login, secret, now, refused) in rows {
        assert_eq!(transactions.view(&id, Claim { login, secret, now }).err(), refused, "{name}");
    }
}

#[test]
fn five_tries_and_no_more() {
    let (transactions, id, login) = opened(600);
    let claim = Claim { login, secret: Some(SECRET), now: 10 };
    for left in (0..5).rev() {
        assert_eq!(transactions.take_try(&id, claim).unwrap().tries_left, left);
    }
    assert_eq!(transactions.take_try(&id, claim).err(), Some(Refused::NoTriesLeft));
    transactions.return_try(&id);
    assert!(transactions.take_try(&id, claim).is_ok(), "a try that was not checked");
}

#[test]
fn a_transaction_is_consumed_once_proved_for_the_right_request_and_by_one_of_many() {
    let (transactions, id, login) = opened(600);
    let claim = Claim { login, secret: Some(SECRET), now: 10 };
    let consume = |matches: bool| transactions.consume(&id, claim, |_| matches).err();
    assert_eq!(consume(true), Some(Refused::Unproved));
    assert!(transactions.prove(&id, claim, PROOF).unwrap().missing.is_empty());
    assert_eq!(consume(false), Some(Refused::OtherRequest));
    let winners = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..16).map(|_| scope.spawn(|| consume(true).is_none())).collect();
        racers.into_iter().filter_map(|racer| racer.join().unwrap().then_some(())).count()
    });
    assert_eq!(winners, 1);
    assert_eq!(consume(true), Some(Refused::Gone));
}

#[test]
fn a_login_keeps_its_five_newest_and_nobody_elses_are_touched() {
    let (transactions, others, _) = opened(600);
    let login = RandomId::new();
    let ids: Vec<_> = (0..7).map(|_| RandomId::new()).collect();
    for (n, id) in ids.iter().enumerate() {
        let evicted = transactions.open(*id, transaction(login, 1_000 + n as u64), 0).unwrap();
        assert_eq!(evicted, if n < 5 { vec![] } else { vec![ids[n - 5]] });
    }
    assert!(transactions.lock().contains_key(&others));
    transactions.forget_login(&login);
    assert_eq!(transactions.lock().len(), 1);
    transactions.sweep(600);
    assert!(transactions.lock().is_empty());
}

#[test]
fn a_user_of_many_logins_keeps_the_newest_and_leaves_room_for_others() {
    let (transactions, others, _) = opened(600);
    for n in 0..2 * MOST_PER_USER as u64 {
        let of_mallory = Transaction { user: "mallory".to_owned(), ..transaction(RandomId::new(), 1_000 + n) };
        transactions.open(RandomId::new(), of_mallory, 0).unwrap();
    }
    let open = transactions.lock();
    let oldest = open.values().filter(|other| other.user == "mallory").map(|other| other.expires_at).min();
    assert_eq!((open.len(), oldest), (1 + MOST_PER_USER, Some(1_000 + MOST_PER_USER as u64)));
    assert!(open.contains_key(&others));
}

#[test]
fn when_full_no_more_are_opened_until_old_ones_expire() {
    let transactions = Transactions::default();
    for _ in 0..MOST {
        transactions.lock().insert(RandomId::new(), transaction(RandomId::new(), 600));
    }
    assert!(transactions.open(RandomId::new(), transaction(RandomId::new(), 600), 599).is_none());
    assert!(transactions.open(RandomId::new(), transaction(RandomId::new(), 1200), 600).is_some());
}
