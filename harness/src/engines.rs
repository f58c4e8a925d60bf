//! The list of engines, native before portable: the one place that names them.

use hallmark_kernels::backend::Backend;
use hallmark_kernels::{cpu, wgpu};

/// All engines of this build, in order of preference for one physical device.
pub fn all() -> Vec<Box<dyn Backend>> {
    vec![Box::new(wgpu::Wgpu::default()), Box::new(cpu::Cpu::new())]
}

/// The engine with this name.
pub fn find(name: &str) -> Option<Box<dyn Backend>> {
    all().into_iter().find(|b| b.name() == name)
}
