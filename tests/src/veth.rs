//! What a veth needs before it takes the packets that XDP at its other end sends back (`XDP_TX`).

use anyhow::{Context, Result};
use aya::programs::{Xdp, xdp::XdpMode};
use aya::{Btf, Ebpf, EbpfLoader};
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

const NAME: &str = "pass";
/// `r0 = XDP_PASS; exit`.
const INSTRUCTIONS: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// Makes `interface` take what XDP sends it, until the answer is dropped. A network card needs nothing of the kind: the
/// kernel wakes a veth for such packets only if a program runs there too, and this one passes everything.
pub fn take_from_xdp(interface: &str) -> Result<Ebpf> {
    let mut loaded = EbpfLoader::new().btf(None::<&Btf>).load(&pass_all()?).context("reading the program")?;
    let program: &mut Xdp = loaded.program_mut(NAME).context("the program is in its object")?.try_into()?;
    program.load().context("loading the program")?;
    program.attach(interface, XdpMode::Driver).with_context(|| format!("attaching to {interface}"))?;
    Ok(loaded)
}

/// The program as the object file that a compiler would have written.
fn pass_all() -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let section = object.add_section(Vec::new(), b"xdp".to_vec(), SectionKind::Text);
    let symbol = object.add_symbol(Symbol {
        name: NAME.into(),
        value: 0,
        size: 0,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    object.add_symbol_data(symbol, section, &INSTRUCTIONS, 8);
    Ok(object.write()?)
}
