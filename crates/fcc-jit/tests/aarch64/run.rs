//! Compiling for aarch64, linking and running.

use crate::common::object_emitter;
use crate::problems::Problem;
use cranelift_object::ObjectModule;
use fcc_jit::asm::Isa;
use fcc_jit::module::{Access, Emitter};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names of programs that are there.
pub struct Tools {
    compiler: &'static str,
    emulator: &'static str,
}

/// The tools, if both are installed.
pub fn tools() -> Option<Tools> {
    let runs = |name: &'static str| Command::new(name).arg("--version").output().is_ok().then_some(name);
    let compiler = runs("aarch64-linux-gnu-gcc")?;
    let emulator = runs("qemu-aarch64-static").or_else(|| runs("qemu-aarch64"))?;
    Some(Tools { compiler, emulator })
}

/// An object file in the making, and what its kernels are to be run on.
pub struct Machine {
    emitter: Emitter<ObjectModule>,
    input: Vec<u8>,
    /// Bytes of the operands of each case, and which of them is the result.
    sizes: Vec<(Vec<usize>, usize)>,
}

impl Machine {
    pub fn new() -> Machine {
        let emitter = object_emitter("aarch64-unknown-linux-gnu", Isa::Baseline, &[]);
        Machine { emitter, input: Vec::new(), sizes: Vec::new() }
    }

    /// Compiles a kernel and takes note of its buffers; what they lack of the operands' sizes is NaN.
    pub fn add(&mut self, problem: &Problem, buffers: &[Vec<f32>]) {
        let kernel = problem.build(&mut self.emitter, 2).expect("build");
        self.emitter.export(&format!("k{}", self.sizes.len()), &kernel).expect("export");
        let mut words = vec![kernel.tasks as u32, kernel.operands.len() as u32];
        for (i, operand) in kernel.operands.iter().enumerate() {
            let data = buffers.get(i).map_or(&[][..], Vec::as_slice);
            assert!(data.len() * 4 <= operand.bytes, "{}: {}", kernel.name, operand.name);
            words.push(operand.bytes as u32);
            words.extend(data.iter().map(|v| v.to_bits()));
            words.resize(words.len() + operand.bytes / 4 - data.len(), f32::NAN.to_bits());
        }
        self.input.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        let y = kernel.operands.iter().position(|o| o.access == Access::Write).expect("a result");
        self.sizes.push((kernel.operands.iter().map(|o| o.bytes).collect(), y));
    }

    /// Links and runs; gives the result of each case.
    pub fn run(self, tools: &Tools) -> Vec<Vec<f32>> {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("aarch64");
        fs::create_dir_all(&dir).expect("directory");
        let n = self.sizes.len();
        let object = self.emitter.module.finish().emit().expect("object file");
        fs::write(dir.join("kernels.o"), object).expect("object file");
        let list: Vec<String> = (0..n).map(|i| format!("k{i}")).collect();
        let list = list.join(", ");
        let header = format!("step {list};\nstatic step *const steps[] = {{{list}}};\n");
        fs::write(dir.join("kernels.h"), header).expect("header");
        let mut input = (n as u32).to_le_bytes().to_vec();
        input.extend(self.input);
        fs::write(dir.join("input"), input).expect("input");
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/aarch64/driver.c");
        succeed(
            Command::new(tools.compiler)
                .args(["-std=c11", "-Wall", "-Werror", "-O1", "-static", "-o", "run", "-I."])
                .arg(driver)
                .arg("kernels.o")
                .current_dir(&dir),
        );
        succeed(Command::new(tools.emulator).args(["./run", "input", "output"]).current_dir(&dir));
        let output = fs::read(dir.join("output")).expect("output");
        let mut words = output.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let mut results = Vec::new();
        for (sizes, y) in &self.sizes {
            let read = |bytes: &usize| words.by_ref().take(bytes / 4).collect();
            let mut operands: Vec<Vec<f32>> = sizes.iter().map(read).collect();
            results.push(operands.swap_remove(*y));
        }
        assert!(words.next().is_none(), "more output than operands");
        results
    }
}

fn succeed(command: &mut Command) {
    let out = command.output().expect("it starts");
    assert!(out.status.success(), "{command:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
}
