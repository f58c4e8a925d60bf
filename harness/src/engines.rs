//! The list of engines, native before portable: the one place that names them.

use hallmark_kernels::backend::Backend;
use hallmark_kernels::{cpu, cuda, wgpu};

/// What the command line fixes for engines.
pub type Choice = cuda::Options;

/// All engines of this build, in order of preference for one physical device.
pub fn all(choice: &Choice) -> Vec<Box<dyn Backend>> {
    vec![
        Box::new(cuda::Cuda {
            options: choice.clone(),
        }),
        Box::new(wgpu::Wgpu::default()),
        Box::new(cpu::Cpu::new()),
    ]
}

/// The engine with this name; a device that was listed carries what was fixed for it.
pub fn find(name: &str) -> Option<Box<dyn Backend>> {
    let engines = all(&Choice::default());
    engines.into_iter().find(|b| b.name() == name)
}
