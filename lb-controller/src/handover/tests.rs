use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use super::*;
use crate::handover::wire::{Ask, Channel, Tell};

/// Gives sockets, and tells what is asked of it.
struct Told {
    sockets: Sockets,
    told: Mutex<Sender<&'static str>>,
    ended: Vec<Revoked>,
    commits: bool,
}

impl Told {
    fn tell(&self, what: &'static str) {
        self.told.lock().unwrap().send(what).unwrap();
    }
}

impl Gives for Told {
    fn running(&self) -> Running {
        let (version, folder) = (String::from("1"), String::from("/"));
        Running { pid: 7, version, generation: 4, arguments: vec![], folder, notify_socket: None }
    }

    fn sockets(&self) -> io::Result<Sockets> {
        self.sockets.try_clone()
    }

    fn lend_datapath(&self) -> Result<(), String> {
        self.tell("lend datapath");
        Ok(())
    }

    fn lend_store(&self) {
        self.tell("lend store");
    }

    fn take_back(&self) {
        self.tell("take back");
    }

    fn commit(&self) -> Result<(), String> {
        self.tell("commit");
        if self.commits { Ok(()) } else { Err(String::from("no room")) }
    }

    fn go(&self) {
        self.tell("go");
    }

    fn hear(&self, drained: Drained) -> News {
        let ended = self.ended.iter().filter(|revoked| revoked.ended_at >= drained.since).copied().collect();
        News { generation: 4, ended, api_key_changes: 2 }
    }
}

struct Stage {
    folder: tempfile::TempDir,
    told: std::sync::mpsc::Receiver<&'static str>,
    _door: Door,
}

impl Stage {
    fn new(workers: usize, ended: Vec<Revoked>, commits: bool) -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let (sender, told) = channel();
        let listener = || OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let output = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let sockets = Sockets {
            listeners: (0..workers).map(|_| vec![listener(), listener()]).collect(),
            metrics: None,
            lock: Some(output()),
            output: [output(), output()],
        };
        let gives = Told { sockets, told: Mutex::new(sender), ended, commits };
        let door = Door::open(folder.path().join("door")).unwrap();
        Giver::start(&door, Arc::new(gives)).unwrap();
        Stage { folder, told, _door: door }
    }

    fn door(&self) -> std::path::PathBuf {
        self.folder.path().join("door")
    }

    fn was_told(&self, what: &str) {
        assert_eq!(self.told.recv_timeout(Duration::from_secs(30)).unwrap(), what);
    }
}

#[test]
fn a_taker_gets_every_socket_and_has_all_once_it_commits() {
    // More descriptors than fit one message.
    let stage = Stage::new(100, vec![], true);
    let taker = Taker::begin(&stage.door()).unwrap();
    assert_eq!(taker.listeners.len(), 100);
    assert!(taker.listeners.iter().flatten().all(|listener| listener.local_addr().unwrap().port() != 0));
    assert!(taker.lock.is_some() && taker.metrics.is_none());
    assert_eq!(taker.running.generation, 4);
    taker.borrow_datapath().unwrap();
    stage.was_told("lend datapath");
    taker.borrow_store().unwrap();
    stage.was_told("lend store");
    taker.commit().unwrap();
    stage.was_told("commit");
    stage.was_told("go");
}

#[test]
fn a_taker_that_ends_before_it_commits_has_changed_nothing_and_another_may_try() {
    let stage = Stage::new(1, vec![], true);
    for _ in 0..3 {
        let taker = Taker::begin(&stage.door()).unwrap();
        taker.borrow_datapath().unwrap();
        stage.was_told("lend datapath");
        let second = Taker::begin(&stage.door()).unwrap_err();
        assert!(matches!(second, HandoverError::Busy { .. }), "{second}");
        drop(taker);
        stage.was_told("take back");
        // The giver is free a moment after that.
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_commit_that_fails_is_told_and_undone() {
    let stage = Stage::new(1, vec![], false);
    let taker = Taker::begin(&stage.door()).unwrap();
    let error = taker.commit().unwrap_err();
    assert!(matches!(&error, HandoverError::Refused { why } if why.contains("no room")), "{error}");
    stage.was_told("commit");
    stage.was_told("take back");
}

#[test]
fn steps_out_of_turn_and_takers_of_another_protocol_are_refused() {
    let stage = Stage::new(1, vec![], true);
    let take_over = |protocol| Ask::TakeOver { protocol, pid: 1, version: String::new() };
    for ask in [Ask::Commit, Ask::LendStore, take_over(PROTOCOL + 1)] {
        let channel = Channel::connect(&stage.door()).unwrap();
        channel.send(&ask, &[]).unwrap();
        let (tell, _) = channel.receive::<Tell>(Duration::from_secs(30)).unwrap().unwrap();
        assert!(matches!(tell, Tell::Refused { busy: false, .. }), "{ask:?}: {tell:?}");
    }
    assert!(stage.told.try_recv().is_err(), "nothing was asked of the giver");
}

#[test]
fn a_drained_process_hears_all_that_ended_however_much_it_is() {
    let ended = |number: u64| Revoked {
        id: u128::from(number).to_be_bytes(),
        user: [9; 16],
        ended_at: number,
        until: number + 1_000,
    };
    let stage = Stage::new(1, (0..2_000).map(ended).collect(), true);
    let mut follower = Follower::new(stage.door());
    let drained = Drained { pid: 1, generation: 3, connections: 2, seconds_left: 9, since: 500, ended: vec![] };
    let Heard::News(news) = follower.ask(drained) else { panic!("no answer") };
    assert_eq!((news.generation, news.api_key_changes, news.ended.len()), (4, 2, 1_500));
}

#[test]
fn a_drained_process_whose_successor_is_gone_learns_that_it_is_deaf() {
    let mut follower = Follower::new(Path::new("/nowhere/door").to_owned());
    let drained = Drained { pid: 1, generation: 3, connections: 2, seconds_left: 9, since: 500, ended: vec![] };
    let begun = Instant::now();
    while !matches!(follower.ask(drained.clone()), Heard::Deaf) {
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    assert!(begun.elapsed() >= Duration::from_secs(4), "it had patience");
}
