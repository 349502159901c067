//! Deny lists against real packets, the loader's end, and the real controller.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lb_datapath::{
    CompiledLists, Datapath, Desired, DesiredService, Listed, ListedPrefix, LoadOptions, MapsOrigin, Ports, Prefix,
    Reason, SourceClass, compile_lists,
};
use lb_tests::flood::Flood;
use lb_tests::level::has_root;
use lb_tests::netns::Namespace;
use lb_tests::program::unique_options;
use lb_tests::running::Controller;

fn desired() -> Desired {
    let vips = vec!["198.51.100.10".parse().expect("an address")];
    let web = DesiredService { name: String::from("web"), vips, ports: Ports::One(443), ..DesiredService::default() };
    Desired { services: vec![web], ..Desired::default() }
}

/// Denies 10.66.0.0/16 by so many prefixes of one length, and others beside them.
fn denying(length: u8, others: u32) -> CompiledLists {
    let first = Ipv4Addr::new(10, 66, 0, 0).to_bits();
    let own = (0..1_u32 << (length - 16)).map(|number| (first + (number << (32 - length)), length));
    let others = (0..others).map(|number| (0xcb00_0000 + number, 32));
    let prefixes = own.chain(others).map(|(bits, length)| ListedPrefix {
        prefix: Prefix::new(Ipv4Addr::from_bits(bits).into(), length).expect("a prefix"),
        listed: Listed::Denied,
    });
    compile_lists(prefixes.collect()).expect("compiles")
}

#[test]
fn no_packet_of_a_denied_source_slips_through_while_lists_are_replaced() {
    if !has_root("namespaces") {
        return;
    }
    let (client, edge) = (Namespace::new(), Namespace::new());
    client.connect("uplink", &edge, "front");
    client.ip("addr add 10.9.0.1/24 dev uplink");
    edge.ip("addr add 10.9.0.2/24 dev front");
    client.ip("route add 198.51.100.0/24 via 10.9.0.2");
    let options = LoadOptions { interfaces: vec![String::from("front")], ..unique_options() };
    let (root, locks) = (options.pin_root.clone(), options.lock_folder.clone());
    let mut datapath = edge.run(move || {
        let (mut datapath, _) = Datapath::load(&options).expect("loaded");
        datapath.replace_lists(&denying(24, 0)).expect("written");
        datapath.apply(&desired()).expect("applied");
        datapath
    });
    let flood = Flood {
        target: "198.51.100.10:443".parse().expect("an address"),
        first_source: Ipv4Addr::new(10, 66, 0, 0),
        sources: 1 << 16,
        packets_per_second: 100_000,
        duration: Duration::from_secs(2),
    };
    let sent = client.start(move || flood.run().expect("sent"));
    // Each of them says the same of the flood's sources by other parts of root and table.
    let lists = [denying(16, 10), denying(28, 100_000), denying(32, 0), denying(24, 3), denying(29, 50_000)];
    let mut replacements = 0;
    let sent = loop {
        for one in &lists {
            datapath.replace_lists(one).expect("written");
            replacements += 1;
        }
        match sent.try_recv() {
            Ok(sent) => break sent,
            Err(std::sync::mpsc::TryRecvError::Empty) => {}
            Err(gone) => panic!("the flood: {gone}"),
        }
    };
    let stats = datapath.reader().stats().expect("counters");
    let packets = |reason| stats.packets(reason, SourceClass::Unknown);
    drop(datapath);
    edge.run(move || lb_datapath::unload(&root, &locks)).expect("unloaded");
    assert_eq!(packets(Reason::Admitted), 0, "{sent} packets, {replacements} replacements");
    assert_eq!(packets(Reason::DeniedByList), sent, "{replacements} replacements");
    // On a busy machine a replacement takes a while; each kind of list must have been in force once.
    assert!(sent > 10_000 && replacements >= lists.len(), "{sent} packets, {replacements} replacements");
}

#[test]
fn lists_outlive_their_loader_and_are_replaced_by_the_next_one() {
    if !has_root("namespaces") {
        return;
    }
    Namespace::new().run(|| {
        let options = unique_options();
        let facts = |datapath: &Datapath| {
            let [ipv4, ipv6] = datapath.reader().lists().expect("read");
            assert_eq!(ipv6, None);
            ipv4.map(|list| list.denied)
        };
        for prefixes in [1, 16] {
            let (mut datapath, _) = Datapath::load(&options).expect("loaded");
            datapath.replace_lists(&denying(16 + prefixes, 0)).expect("written");
            drop(datapath);
            let (datapath, report) = Datapath::load(&options).expect("loaded");
            assert_eq!(report.maps, MapsOrigin::Reused);
            assert_eq!(facts(&datapath), Some(1 << prefixes));
        }
        lb_datapath::unload(&options.pin_root, &options.lock_folder).expect("unloaded");
    });
}

/// A controller that serves in a namespace of its own until it is dropped.
struct Running {
    controller: Controller,
    _edge: Namespace,
    _peer: Namespace,
}

impl Running {
    fn start(list: &str) -> Option<Running> {
        let mut controller = Controller::new("lists")?;
        controller.configure(
            "interfaces: [front]\nservices: [{name: shop, vips: [198.51.100.10], port: 443}]\n\
             pools: [{name: shop, backends: \"127.0.0.1:1\"}]\nroutes: [{path: /**, pool: shop}]\n\
             lists: {deny: [{file: deny.txt}], allow: [192.0.2.53]}\n",
        );
        controller.write("deny.txt", list);
        let (edge, peer) = (Namespace::new(), Namespace::new());
        peer.connect("uplink", &edge, "front");
        controller.start(&edge);
        Some(Running { controller, _edge: edge, _peer: peer })
    }

    /// What `lists` says with `arguments`, once it says something that `is_so` of; the controller may be starting, or
    /// reading.
    fn await_lists(&self, arguments: &[&str], is_so: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let begin = Instant::now();
        loop {
            let mut command = self.controller.command(&["lists", "--json"]);
            let output = command.args(arguments).output().expect("the command line runs");
            let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if output.status.success() && is_so(&said) {
                return said;
            }
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(begin.elapsed() < Duration::from_secs(60), "still {said} {errors}");
        }
    }

    fn write_list(&self, text: &str) {
        self.controller.write("deny.txt", text);
    }
}

fn denied_in_kernel(said: &serde_json::Value) -> Option<u64> {
    said["families"][0]["denied"].as_u64()
}

#[test]
fn the_controller_takes_a_changed_file_refuses_a_bad_one_and_says_what_decides() {
    let Some(running) = Running::start("# two\n203.0.113.0/24\n10.0.0.0/8 ; internal\n") else { return };
    let said = running.await_lists(&[], |said| denied_in_kernel(said) == Some(2));
    assert_eq!(said["families"][0]["allowed"], 1);
    assert_eq!(said["sources"][0]["ipv4"], 2, "{said}");
    assert!(said["refused"].is_null());

    let decision = running.await_lists(&["10.1.2.3"], |_| true);
    assert_eq!((&decision["listed"], &decision["prefix"]), (&"denied".into(), &"10.0.0.0/8".into()));
    assert_eq!(decision["line"], 3);
    assert!(decision["file"].as_str().is_some_and(|file| file.ends_with("deny.txt")), "{decision}");
    assert_eq!(running.await_lists(&["192.0.2.53"], |_| true)["listed"], "allowed");
    assert_eq!(running.await_lists(&["2001:db8::1"], |_| true)["listed"], "unlisted");

    // By now the controller has given up what creating maps needs, in all threads but one.
    running.write_list("203.0.113.0/24\n10.0.0.0/8\n192.0.2.0/28\n192.0.2.200\n");
    running.await_lists(&[], |said| denied_in_kernel(said) == Some(4));

    running.write_list("203.0.113.0/24\nnonsense\n");
    let said = running.await_lists(&[], |said| !said["refused"].is_null());
    assert!(said["refused"].as_str().is_some_and(|why| why.contains("deny.txt:2: `nonsense`")), "{said}");
    assert_eq!(denied_in_kernel(&said), Some(4), "the old list goes on");
}

/// A million of each family, in a file as it would be published.
#[test]
fn how_far_a_long_loading_is_can_be_seen_and_the_old_list_is_in_force_meanwhile() {
    use std::fmt::Write;
    const MILLION: u32 = 1_000_000;
    let Some(running) = Running::start("203.0.113.0/24\n") else { return };
    running.await_lists(&[], |said| denied_in_kernel(said) == Some(1));
    let mut text = String::with_capacity(48 << 20);
    for number in 0..MILLION {
        let v4 = Ipv4Addr::from_bits(64 << 24 | number.wrapping_mul(0x9e37_79b1) & 0x3fff_ffff);
        writeln!(text, "{v4}\n2001:{:x}:{:x}::/48", number >> 16, number & 0xffff).expect("in memory");
    }
    let begin = Instant::now();
    running.write_list(&text);
    let said = running.await_lists(&[], |said| said["loading"]["prefixes"].as_u64() > Some(0));
    let loading = &said["loading"];
    assert!(["reading", "compiling"].contains(&loading["stage"].as_str().expect("a stage")), "{loading}");
    assert!(loading["prefixes"].as_u64() <= Some(2 * u64::from(MILLION)), "{loading}");
    assert_eq!(denied_in_kernel(&said), Some(1), "{said}");
    // Each family's list is replaced by itself.
    let are_million = |said: &serde_json::Value| [0, 1].map(|family| said["families"][family]["denied"] == MILLION);
    let said = running.await_lists(&[], |said| are_million(said) == [true, true]);
    println!("two million lines were in force after {:?}", begin.elapsed());
    assert!(said["loading"].is_null() && said["refused"].is_null(), "{said}");
    for family in [0, 1] {
        let bytes = said["families"][family]["memory_bytes"].as_u64().expect("told");
        assert!((12 << 20..64 << 20).contains(&bytes), "{bytes}");
    }
}

#[test]
fn only_the_thread_that_writes_maps_may_use_bpf() {
    const CAP_BPF: u32 = 39;
    let Some(running) = Running::start("203.0.113.0/24\n") else { return };
    running.await_lists(&[], |said| denied_in_kernel(said) == Some(1));
    let mut may = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", running.controller.process_id())).expect("listed") {
        let task = task.expect("a thread").path();
        let [name, status] = ["comm", "status"].map(|file| std::fs::read_to_string(task.join(file)).expect("read"));
        let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:")).expect("a line");
        if u64::from_str_radix(permitted.trim(), 16).expect("a number") >> CAP_BPF & 1 == 1 {
            may.push(name.trim().to_owned());
        }
    }
    assert_eq!(may, ["reconciler"]);
}
