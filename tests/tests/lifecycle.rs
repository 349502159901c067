//! A data plane that forwards is restarted, upgraded, rolled back and unloaded under traffic: nothing is lost before it is
//! asked to go.

use std::collections::BTreeSet;
use std::path::PathBuf;

use lb_datapath::{Datapath, Forgotten, Forward, LoadOptions, LoadReport, MapsOrigin, OtherVersion, Reader, Source};
use lb_tests::level::has_root;
use lb_tests::netns::Namespace;
use lb_tests::program::{chain, unique_options};
use lb_tests::steady::{Network, Steady, Tally, desired};

/// Runs `test` on an edge that forwards under steady traffic, checks that nothing was lost, and unloads.
fn under_traffic(forward: Forward, test: impl FnOnce(&Lab) + Send + 'static) {
    if !has_root("namespaces") {
        return;
    }
    let network = Network::new();
    let options = LoadOptions { interfaces: vec![String::from("front")], ..unique_options() };
    let (first, _) = start(&network.edge, &options, forward, &OtherVersion::default());
    let traffic = network.steady();
    drop(first);
    let lab = Lab { network, options, forward, traffic };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&lab)));
    let Lab { network, options, traffic, .. } = lab;
    let Tally { sent, lost, answers } = traffic.finish();
    let retransmitted = network.client.retransmitted();
    let (root, locks) = (options.pin_root.clone(), options.lock_folder);
    network.edge.run(move || lb_datapath::unload(&root, &locks).expect("unloaded"));
    assert!(!options.pin_root.exists(), "nothing is left");
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    assert!(sent > 500 && answers > 100, "{sent} datagrams and {answers} answers are no steady traffic");
    assert_eq!(lost, Vec::<u64>::new(), "of {sent} datagrams");
    assert_eq!(retransmitted, 0, "TCP segments were lost");
}

struct Lab {
    network: Network,
    options: LoadOptions,
    forward: Forward,
    traffic: Steady,
}

impl Lab {
    /// A controller of this version starts; it ends at once, as by SIGKILL, when the answer is dropped.
    fn start(&self, version: &OtherVersion) -> (Datapath, LoadReport) {
        start(&self.network.edge, &self.options, self.forward, version)
    }

    /// Packets to the service that the maps of the datapath have counted.
    fn counted(reader: &Reader) -> u64 {
        let stats = reader.stats().expect("counters");
        let in_all: u64 = reader.backends().expect("listed").iter().map(|backend| backend.counters.packets).sum();
        assert!(in_all > 0, "of the backends");
        stats.services["echo"].admitted_packets
    }

    fn folders(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.options.pin_root).expect("listed");
        let names = entries.map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.filter(|name| name != "links").collect();
        names.sort();
        names
    }

    fn maps(&self) -> PathBuf {
        let folders = self.folders();
        let [only] = folders.as_slice() else { panic!("{folders:?}") };
        self.options.pin_root.join(only)
    }
}

fn start(edge: &Namespace, options: &LoadOptions, forward: Forward, version: &OtherVersion) -> (Datapath, LoadReport) {
    let options = LoadOptions { as_version: version.clone(), ..options.clone() };
    edge.run(move || {
        let mut datapath = Datapath::prepare(&options).unwrap_or_else(|error| panic!("{}", chain(&error)));
        datapath.apply(&desired(forward)).unwrap_or_else(|error| panic!("{}", chain(&error)));
        let report = datapath.attach().unwrap_or_else(|error| panic!("{}", chain(&error)));
        (datapath, report)
    })
}

/// As if one with more room for blocked sources, and nothing else that is new.
fn larger() -> OtherVersion {
    OtherVersion { entries: vec![("BLOCKS", 8192), ("VERIFIED", 32_768)], ..OtherVersion::default() }
}

#[test]
fn a_controller_that_is_killed_and_restarted_loses_no_packet_and_no_count() {
    for forward in [Forward::L2, Forward::Ipip] {
        under_traffic(forward, |lab| {
            let mut counted = 0;
            for _ in 0..4 {
                lab.traffic.flows_on();
                let (datapath, report) = lab.start(&OtherVersion::default());
                assert_eq!(report.maps, MapsOrigin::Reused);
                assert!(report.interfaces.iter().all(|interface| interface.replaced), "{report:?}");
                let now = Lab::counted(&datapath.reader());
                assert!(now >= counted + 100, "{now} packets after {counted}");
                counted = now;
            }
            assert!(counted >= lab.traffic.arrived() - 200, "all restarts together forgot none");
        });
    }
}

#[test]
fn an_upgrade_to_another_layout_and_the_way_back_lose_no_packet_and_forget_nothing_that_fits() {
    for forward in [Forward::L2, Forward::Ipip] {
        under_traffic(forward, |lab| {
            let (mut datapath, _) = lab.start(&OtherVersion::default());
            let [blocked, verified]: [Source; 2] =
                ["203.0.113.7", "203.0.113.8"].map(|text| Source::of(text.parse().expect("an address")));
            let hour = std::time::Duration::from_secs(3600);
            datapath.block(blocked, hour).expect("blocked");
            datapath.mark_verified(verified, hour).expect("marked");
            let mut counted = Lab::counted(&datapath.reader());
            drop(datapath);
            let original = lab.maps();
            for version in [larger(), OtherVersion::default()] {
                lab.traffic.flows_on();
                let (datapath, report) = lab.start(&version);
                assert_eq!(report.maps, MapsOrigin::Migrated { forgotten: BTreeSet::new() });
                assert!(report.interfaces.iter().all(|interface| interface.replaced), "{report:?}");
                lab.traffic.flows_on();
                let reader = datapath.reader();
                assert_eq!(reader.blocks().expect("listed").len(), 1);
                assert_eq!(reader.verified_sources().expect("listed").len(), 1);
                let now = Lab::counted(&reader);
                assert!(now >= counted + 100, "{now} packets after {counted}");
                counted = now;
                assert_eq!(lab.maps() == original, version == OtherVersion::default(), "old pins are gone");
            }
        });
    }
}

#[test]
fn maps_that_mean_something_else_are_filled_from_the_configuration_before_packets_meet_them() {
    under_traffic(Forward::L2, |lab| {
        let changed = vec!["BACKENDS", "SERVICES", "REASONS", "BLOCKS"];
        let (datapath, report) = lab.start(&OtherVersion { changed, ..OtherVersion::default() });
        let MapsOrigin::Migrated { forgotten } = report.maps else { panic!("{report:?}") };
        let expected = [Forgotten::Flows, Forgotten::BlockedSources, Forgotten::Counters];
        assert_eq!(forgotten, expected.into_iter().collect());
        lab.traffic.flows_on();
        drop(datapath);
        // And all of it, as from a version that does not say what its maps mean.
        std::fs::remove_file(lab.maps().join("MEANINGS")).expect("removed");
        let (_, report) = lab.start(&OtherVersion::default());
        let MapsOrigin::Migrated { forgotten } = report.maps else { panic!("{report:?}") };
        assert!(forgotten.contains(&Forgotten::HashKeys), "{forgotten:?}");
        lab.traffic.flows_on();
    });
}

#[test]
fn an_upgrade_that_fails_at_its_last_step_puts_the_earlier_program_back() {
    under_traffic(Forward::L2, |lab| {
        let (datapath, _) = lab.start(&larger());
        drop(datapath);
        let of_larger = lab.maps();
        drop(lab.start(&OtherVersion::default()));
        // The new maps' final place is taken: found out only after the programs were exchanged.
        std::fs::create_dir_all(of_larger.join("obstacle")).expect("made");
        let options = LoadOptions { as_version: larger(), ..lab.options.clone() };
        let forward = lab.forward;
        let error = lab.network.edge.run(move || {
            let mut datapath = Datapath::prepare(&options).unwrap_or_else(|error| panic!("{}", chain(&error)));
            datapath.apply(&desired(forward)).expect("applied");
            datapath.attach().map(|_| ()).expect_err("the place is taken")
        });
        assert!(error.to_string().contains("move the new maps"), "{error}");
        lab.traffic.flows_on();
        std::fs::remove_dir_all(of_larger).expect("removed");
        assert_eq!(lab.folders().len(), 1, "the new maps are gone: {:?}", lab.folders());
        let (_, report) = lab.start(&OtherVersion::default());
        assert_eq!(report.maps, MapsOrigin::Reused, "what was in force is in force");
    });
}

#[test]
fn a_migration_that_was_killed_half_way_is_done_anew_and_leaves_nothing() {
    under_traffic(Forward::L2, |lab| {
        // Killed after the maps were made: nothing of it is undone, but its lock is gone with it.
        let lock_folder = lab.options.lock_folder.join("of-the-dead");
        let options = LoadOptions { as_version: larger(), lock_folder: lock_folder.clone(), ..lab.options.clone() };
        let forward = lab.forward;
        lab.network.edge.run(move || {
            let mut datapath = Datapath::prepare(&options).unwrap_or_else(|error| panic!("{}", chain(&error)));
            datapath.apply(&desired(forward)).expect("applied");
            std::mem::forget(datapath);
        });
        std::fs::remove_dir_all(lock_folder).expect("removed");
        assert_eq!(lab.folders().len(), 2, "{:?}", lab.folders());
        lab.traffic.flows_on();
        let (_, report) = lab.start(&larger());
        assert_eq!(report.maps, MapsOrigin::Migrated { forgotten: BTreeSet::new() });
        assert_eq!(lab.folders().len(), 1, "{:?}", lab.folders());
        lab.traffic.flows_on();
    });
}
