//! Says which operand a kernel reached beside, where a test ends at an unreadable page.

/// Installs the handler, once for each process.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub fn name_faults() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_fault;
        // SAFETY: a zeroed sigaction is a valid one; the handler has the type that SA_SIGINFO says.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            for signal in [libc::SIGSEGV, libc::SIGBUS] {
                assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
            }
        }
    });
}

/// Elsewhere the test ends without a word.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub fn name_faults() {}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the default action: the instruction faults again and ends the process, whatever happens below.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: SA_SIGINFO hands the address over.
    let address = unsafe { (*info).si_addr() } as usize;
    // the fault is that of machine code, which holds no lock and no memory of the allocator
    let text = match fcc_jit::guard::describe(address) {
        Some(place) => format!("machine code reached {place}\n"),
        None => format!("a fault at {address:#x}, beside no guarded operand\n"),
    };
    // SAFETY: the text's own bytes.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
}
