//! What a table of choices calls the machine that it is for.
use crate::asm::Isa;

/// The CPU's name and the widest instructions that it has. Choices depend on its units and caches, which the name
/// stands for; where the CPU has no name to ask for, on its architecture.
pub fn machine() -> String {
    let name = brand().unwrap_or_else(|| format!("{} on {}", std::env::consts::ARCH, std::env::consts::OS));
    format!("{name}, {}", Isa::detect())
}

/// The name that the CPU has for itself.
#[cfg(target_arch = "x86_64")]
fn brand() -> Option<String> {
    use std::arch::x86_64::__cpuid;
    const FIRST: u32 = 0x8000_0002;
    // the highest extended leaf
    if __cpuid(0x8000_0000).eax < FIRST + 2 {
        return None;
    }
    let registers = (FIRST..FIRST + 3).map(__cpuid).flat_map(|r| [r.eax, r.ebx, r.ecx, r.edx]);
    let bytes: Vec<u8> = registers.flat_map(u32::to_le_bytes).take_while(|b| *b != 0).collect();
    // blanks for what is no printable character: the name stands on a line
    let text: String =
        bytes.iter().map(|b| if b.is_ascii_graphic() { char::from(*b) } else { ' ' }).collect();
    let name = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let signature = __cpuid(1).eax;
    (!name.is_empty()).then(|| format!("{name} ({signature:x})"))
}

#[cfg(not(target_arch = "x86_64"))]
fn brand() -> Option<String> {
    None
}
