//! The kernel and the rights of this process.

use std::fs;
use std::path::Path;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use lb_common::types::HashKeys;

use super::Finding;
use crate::error::chain;
use crate::globals::Globals;
use crate::kernel_tcp::KernelTcp;
use crate::load::LogLevel;
use crate::preflight;
use crate::verify::{MapMemory, Verified, verify};

const PROGRAM_TYPES: [(ProgramType, &str); 2] = [(ProgramType::Xdp, "XDP"), (ProgramType::SkLookup, "sk_lookup")];

const MAP_TYPES: [(MapType, &str); 8] = [
    (MapType::Array, "array"),
    (MapType::PerCpuArray, "percpu_array"),
    (MapType::Hash, "hash"),
    (MapType::LruHash, "lru_hash"),
    (MapType::LpmTrie, "lpm_trie"),
    (MapType::ProgramArray, "prog_array"),
    (MapType::SockMap, "sockmap"),
    (MapType::RingBuf, "ringbuf"),
];

/// Those of the object that a kernel may lack; a test holds the table to the object.
const HELPERS: &[(BpfHelper, ProgramType, &str)] = &[
    (BpfHelper::BPF_FUNC_map_lookup_elem, ProgramType::Xdp, "map_lookup_elem"),
    (BpfHelper::BPF_FUNC_map_update_elem, ProgramType::Xdp, "map_update_elem"),
    (BpfHelper::BPF_FUNC_map_delete_elem, ProgramType::Xdp, "map_delete_elem"),
    (BpfHelper::BPF_FUNC_ktime_get_ns, ProgramType::Xdp, "ktime_get_ns"),
    (BpfHelper::BPF_FUNC_get_smp_processor_id, ProgramType::Xdp, "get_smp_processor_id"),
    (BpfHelper::BPF_FUNC_tail_call, ProgramType::Xdp, "tail_call"),
    (BpfHelper::BPF_FUNC_redirect, ProgramType::Xdp, "redirect"),
    (BpfHelper::BPF_FUNC_xdp_adjust_head, ProgramType::Xdp, "xdp_adjust_head"),
    (BpfHelper::BPF_FUNC_xdp_adjust_tail, ProgramType::Xdp, "xdp_adjust_tail"),
    (BpfHelper::BPF_FUNC_fib_lookup, ProgramType::Xdp, "fib_lookup"),
    (BpfHelper::BPF_FUNC_jiffies64, ProgramType::Xdp, "jiffies64"),
    (BpfHelper::BPF_FUNC_ktime_get_coarse_ns, ProgramType::Xdp, "ktime_get_coarse_ns"),
    (BpfHelper::BPF_FUNC_loop, ProgramType::Xdp, "loop"),
    (BpfHelper::BPF_FUNC_skc_lookup_tcp, ProgramType::Xdp, "skc_lookup_tcp"),
    (BpfHelper::BPF_FUNC_tcp_gen_syncookie, ProgramType::Xdp, "tcp_gen_syncookie"),
    (BpfHelper::BPF_FUNC_tcp_raw_gen_syncookie_ipv4, ProgramType::Xdp, "tcp_raw_gen_syncookie_ipv4"),
    (BpfHelper::BPF_FUNC_tcp_raw_gen_syncookie_ipv6, ProgramType::Xdp, "tcp_raw_gen_syncookie_ipv6"),
    (BpfHelper::BPF_FUNC_tcp_raw_check_syncookie_ipv4, ProgramType::Xdp, "tcp_raw_check_syncookie_ipv4"),
    (BpfHelper::BPF_FUNC_tcp_raw_check_syncookie_ipv6, ProgramType::Xdp, "tcp_raw_check_syncookie_ipv6"),
    (BpfHelper::BPF_FUNC_ringbuf_reserve, ProgramType::Xdp, "ringbuf_reserve"),
    (BpfHelper::BPF_FUNC_ringbuf_submit, ProgramType::Xdp, "ringbuf_submit"),
    (BpfHelper::BPF_FUNC_ringbuf_discard, ProgramType::Xdp, "ringbuf_discard"),
    (BpfHelper::BPF_FUNC_xdp_get_buff_len, ProgramType::Xdp, "xdp_get_buff_len"),
    (BpfHelper::BPF_FUNC_xdp_load_bytes, ProgramType::Xdp, "xdp_load_bytes"),
    (BpfHelper::BPF_FUNC_sk_assign, ProgramType::SkLookup, "sk_assign"),
    (BpfHelper::BPF_FUNC_sk_release, ProgramType::SkLookup, "sk_release"),
];

/// Looks at all that loading needs, and loads the programs without attaching them. What the maps cost comes beside it,
/// empty if they could not be made.
pub fn examine(pin_root: &Path) -> (Vec<Finding>, Vec<MapMemory>) {
    let mut findings = vec![version(), btf(), jit(), lockdown(), capabilities(), bpffs(pin_root)];
    findings.extend([program_types(), map_types(), helpers(), memory_limit()]);
    let globals =
        Globals::of(&HashKeys { connection: [1; 2], source: [2; 2] }, LogLevel::Off, &KernelTcp::read(), 1460);
    match verify(&globals) {
        Ok(verified) => {
            findings.push(programs(&verified));
            findings.push(memory(&verified.maps));
            (findings, verified.maps)
        }
        Err(error) => {
            let remedy = "see the findings above; if all else is good, please report the message";
            findings.push(Finding::bad("programs", chain(&error), remedy));
            (findings, Vec::new())
        }
    }
}

fn version() -> Finding {
    let release = preflight::kernel_release();
    match preflight::check_kernel(&release) {
        Ok(()) => Finding::good("kernel", release),
        Err(error) => Finding::bad("kernel", release, format!("{error}; boot a newer one")),
    }
}

fn btf() -> Finding {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Finding::good("BTF", "of the kernel itself");
    }
    let remedy = "maps carry types that a kernel without BTF does not take: boot one with CONFIG_DEBUG_INFO_BTF=y";
    Finding::bad("BTF", "absent", remedy)
}

fn jit() -> Finding {
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok().as_deref().map(str::trim) {
        Some("0") => Finding::warning(
            "JIT",
            "off",
            "programs are interpreted, several times slower: `sysctl -w net.core.bpf_jit_enable=1`",
        ),
        Some(_) => Finding::good("JIT", "on"),
        None => Finding::unknown("JIT", "not told outside the first network namespace"),
    }
}

fn lockdown() -> Finding {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("none", |(mode, _)| mode);
    match chosen {
        "confidentiality" => Finding::warning(
            "lockdown",
            chosen,
            "the kernel keeps its memory from programs; if they do not load, boot with lockdown=integrity or none",
        ),
        other => Finding::good("lockdown", other),
    }
}

fn capabilities() -> Finding {
    match preflight::check_capabilities(&preflight::thread_status()) {
        Ok(()) => Finding::good("capabilities", "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN"),
        Err(error) => Finding::bad("capabilities", "too few", error.to_string()),
    }
}

fn bpffs(pin_root: &Path) -> Finding {
    match preflight::provide_bpffs(pin_root) {
        Ok(()) => Finding::good("bpffs", pin_root.display().to_string()),
        Err(error) => Finding::bad("bpffs", "absent", error.to_string()),
    }
}

fn program_types() -> Finding {
    let lacking = PROGRAM_TYPES.iter().filter(|(kind, _)| matches!(is_program_supported(*kind), Ok(false)));
    listed("program types", &PROGRAM_TYPES.map(|(_, name)| name), lacking.map(|(_, name)| *name).collect())
}

fn map_types() -> Finding {
    let lacking = MAP_TYPES.iter().filter(|(kind, _)| matches!(is_map_supported(*kind), Ok(false)));
    listed("map types", &MAP_TYPES.map(|(_, name)| name), lacking.map(|(_, name)| *name).collect())
}

fn helpers() -> Finding {
    let is_lacking = |(helper, kind, _): &&(BpfHelper, ProgramType, &'static str)| {
        matches!(is_helper_supported(*kind, *helper), Ok(false))
    };
    let lacking = HELPERS.iter().filter(is_lacking).map(|(.., name)| *name).collect();
    listed("helpers", &[&format!("all {}", HELPERS.len())], lacking)
}

fn listed(what: &'static str, needed: &[&str], lacking: Vec<&str>) -> Finding {
    if lacking.is_empty() {
        return Finding::good(what, needed.join(", "));
    }
    let remedy = "boot a kernel that has them: 6.1 or newer with CONFIG_BPF_SYSCALL, CONFIG_NET and CONFIG_INET";
    Finding::bad(what, format!("lacks {}", lacking.join(", ")), remedy)
}

/// Since 5.11 maps are charged to the control group, and the limit of locked memory does not matter.
fn memory_limit() -> Finding {
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let limit = fs::read_to_string(format!("/sys/fs/cgroup{path}/memory.max")).unwrap_or_default();
    match limit.trim().parse::<u64>() {
        Ok(bytes) => Finding::good("memory limit", format!("{} MiB, of control group {path}", bytes >> 20)),
        Err(_) => Finding::good("memory limit", "none"),
    }
}

fn programs(verified: &Verified) -> Finding {
    let most = verified.programs.iter().max_by_key(|program| program.instructions);
    let most = most.map_or_else(String::new, |most| format!("; {} took {} steps", most.name, most.instructions));
    let (count, took_ms) = (verified.programs.len(), verified.took.as_millis());
    Finding::good("programs", format!("all {count} load, in {took_ms} ms{most} of the verifier's 1,000,000"))
}

fn memory(maps: &[MapMemory]) -> Finding {
    let needed: u64 = maps.iter().map(|map| map.bytes).sum();
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = available.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let found = format!("{} MiB for all maps, without deny and allow lists", needed >> 20);
    match available {
        // The maps of a check are gone again; those of an upgrade stand beside the old ones for a moment.
        Some(kibibytes) if (kibibytes << 10) < 2 * needed => {
            Finding::warning("memory", found, "an upgrade needs twice as much for a moment, and less is free")
        }
        _ => Finding::good("memory", found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;
    use std::collections::BTreeSet;

    #[test]
    fn what_is_lacking_is_named_with_the_remedy() {
        let finding = listed("helpers", &["a", "b"], vec!["b"]);
        assert_eq!((finding.grade, finding.found.as_str()), (Grade::Bad, "lacks b"));
        assert!(finding.remedy.contains("6.1"));
        assert_eq!(listed("helpers", &["a", "b"], Vec::new()), Finding::good("helpers", "a, b"));
    }

    /// Calls of helpers in the object; each program has its own copy of what it calls.
    #[test]
    fn every_helper_that_the_object_calls_is_probed() {
        const CALL: u8 = 0x85;
        let Some(bytes) = crate::OBJECT else { return };
        let object = aya_obj::Object::parse(bytes).expect("an object");
        let instructions = object.functions.values().flat_map(|function| &function.instructions);
        let calls = instructions.filter(|one| one.code == CALL && one.src_reg() == 0).map(|one| one.imm as u32);
        let called: BTreeSet<u32> = calls.collect();
        let probed: BTreeSet<u32> = HELPERS.iter().map(|(helper, ..)| *helper as u32).collect();
        assert_eq!(called.difference(&probed).collect::<Vec<_>>(), Vec::<&u32>::new(), "called; add them to HELPERS");
        assert_eq!(
            probed.difference(&called).collect::<Vec<_>>(),
            Vec::<&u32>::new(),
            "not called; take them out of HELPERS"
        );
    }
}
