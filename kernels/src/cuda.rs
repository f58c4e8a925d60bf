//! Decides how NVIDIA devices are found, described and opened by their own engine.
//!
//! The driver, and cuBLASLt where the machine has it, are opened when the program runs; a library or function that is
//! missing is told with its price and never a panic. Matmuls are cuBLASLt's or hallmark's own CUDA C++ (`cuda/`, carried
//! as PTX), and the record names which. Refuses devices before compute capability 8.0, and to change clocks,
//! limits or modes of any.

use crate::backend::{Backend, Device, MemoryTest, PreparedStep};
use crate::collective::Collective;
use crate::collective::alone::{Alone, AloneDone};
use crate::collective::within::{Within, WithinDone};
use crate::device::{Absent, DeviceInfo};
use crate::error::KernelError;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{Dtype, Gemm, StepSpec};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod alone;
mod arrays;
mod blaslt;
mod course;
mod describe;
mod driver;
mod expect;
mod feeder;
mod gpu;
mod graph;
mod layout;
mod library;
mod module;
pub mod nccl;
mod own;
mod pattern;
mod reduce;
mod rig;
mod step;
mod ticks;

#[cfg(test)]
mod tests;

/// Whose matmuls run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matmuls {
    /// cuBLASLt's where it is there and has the type, hallmark's own otherwise.
    #[default]
    Auto,
    /// cuBLASLt's or none.
    CublasLt,
    /// Hallmark's own.
    Own,
}

impl Matmuls {
    pub const ALL: [Self; 3] = [Self::Auto, Self::CublasLt, Self::Own];

    /// The name on the command line and in the record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::CublasLt => "cublaslt",
            Self::Own => "own",
        }
    }
}

/// What a caller may fix instead of leaving it to the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Folder that is searched for NVIDIA's libraries before the system's own places.
    pub folder: Option<PathBuf>,
    pub matmuls: Matmuls,
}

/// The engine `cuda`.
#[derive(Clone, Debug, Default)]
pub struct Cuda {
    pub options: Options,
}

/// Facts through which a listed device tells the process that opens it what the caller fixed.
const FOLDER: &str = "library_folder";
const MATMULS: &str = "matmul_engine";

impl Backend for Cuda {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn list(&self) -> Result<Vec<DeviceInfo>, Absent> {
        let driver = self.driver()?;
        let found = describe::find(&driver)
            .map_err(|failure| driver::WANTED.absent(&failure.to_string()))?;
        let release = describe::release();
        let nccl = nccl::Nccl::open(self.options.folder.as_deref()).ok();
        let served = found.iter().filter(|found| found.is_served());
        let devices: Vec<_> = served
            .enumerate()
            .map(|(index, found)| {
                let mut info = found.info(index, &driver, release.as_deref());
                let mut fact = |key: &str, value: String| info.facts.push((key.to_owned(), value));
                if let Some(nccl) = &nccl {
                    let about = format!("{}, {}", nccl.version(), nccl.file.display());
                    fact("nccl", about);
                }
                fact(MATMULS, self.options.matmuls.name().to_owned());
                if let Some(folder) = &self.options.folder {
                    fact(FOLDER, folder.display().to_string());
                }
                info
            })
            .collect();
        if devices.is_empty() {
            let why = match found.first() {
                Some(found) => found.unserved().why,
                None => "the driver has no device".to_owned(),
            };
            return Err(driver::WANTED.absent(&why));
        }
        Ok(devices)
    }

    fn missing(&self) -> Vec<Absent> {
        let Ok(driver) = self.driver() else {
            return Vec::new();
        };
        let found = describe::find(&driver).unwrap_or_default();
        let (served, unserved): (Vec<_>, Vec<_>) = found.iter().partition(|f| f.is_served());
        let mut missing: Vec<Absent> = unserved.iter().map(|f| f.unserved()).collect();
        if !served.is_empty()
            && self.options.matmuls != Matmuls::Own
            && let Err(absent) = blaslt::Blas::open(self.options.folder.as_deref(), driver.cuda)
        {
            missing.push(absent);
        }
        if !served.is_empty()
            && let Err(absent) = nccl::Nccl::open(self.options.folder.as_deref())
        {
            missing.push(absent);
        }
        missing
    }

    fn unanswered(&self, why: &str) -> Option<Absent> {
        Some(driver::WANTED.absent(why))
    }

    fn open(&self, info: &DeviceInfo) -> Result<Box<dyn Device>, KernelError> {
        let options = options_of(info, &self.options);
        let refused = |why: String| KernelError::Device {
            device: info.id.clone(),
            what: why,
        };
        let absent = |a: Absent| refused(format!("{}: {}; {}", a.what, a.why, a.remedy));
        let driver = driver::Driver::open(options.folder.as_deref()).map_err(absent)?;
        let driver = Arc::new(driver);
        let found = describe::find(&driver).map_err(|f| f.of(&info.id))?;
        let same = |f: &&describe::Found| Some(&f.uuid) == info.uuid.as_ref();
        let Some(device) = found.iter().find(same).cloned() else {
            let known = found.iter().map(|f| format!("{} ({})", f.uuid, f.name));
            return Err(KernelError::UnknownDevice {
                name: format!("{} ({})", info.id, info.name),
                known: known.collect::<Vec<_>>().join(", "),
            });
        };
        let blas = match options.matmuls {
            Matmuls::Own => None,
            wanted => match blaslt::Blas::open(options.folder.as_deref(), driver.cuda) {
                Ok(blas) => Some(Arc::new(blas)),
                Err(missing) if wanted == Matmuls::CublasLt => return Err(absent(missing)),
                Err(_) => None,
            },
        };
        let gpu = gpu::Gpu::open(driver, device, &info.id)?;
        let mut info = info.clone();
        // A resumed run hands over what it was begun with; what is here now counts.
        info.facts.retain(|(key, _)| !key.starts_with("library "));
        info.facts.extend(libraries(&gpu, blas.as_deref()));
        Ok(Box::new(Opened {
            modules: module::Modules::new(&gpu),
            lt: RefCell::default(),
            wanted: options.matmuls,
            folder: options.folder,
            info,
            blas,
            gpu,
        }))
    }
}

impl Cuda {
    fn driver(&self) -> Result<driver::Driver, Absent> {
        driver::Driver::open(self.options.folder.as_deref()).map_err(|mut absent| {
            let bus = describe::on_the_bus(Path::new("/sys/bus/pci/devices"));
            absent.why = match bus.as_slice() {
                [] => format!("{}; the PCI bus shows no NVIDIA device either", absent.why),
                some => format!(
                    "{}, though the PCI bus shows {}",
                    absent.why,
                    some.join(", ")
                ),
            };
            absent
        })
    }
}

/// What the caller that listed the device had fixed; this process' own options where it says nothing.
fn options_of(info: &DeviceInfo, own: &Options) -> Options {
    let fact = |key: &str| info.facts.iter().find(|(k, _)| k == key).map(|(_, v)| v);
    let named = |name: &String| Matmuls::ALL.into_iter().find(|m| m.name() == name);
    Options {
        folder: fact(FOLDER).map(PathBuf::from).or(own.folder.clone()),
        matmuls: fact(MATMULS).and_then(named).unwrap_or(own.matmuls),
    }
}

/// Which libraries run: path, version and digest.
fn libraries(gpu: &gpu::Gpu, blas: Option<&blaslt::Blas>) -> Vec<(String, String)> {
    let described = |file: &Path, version: &str| {
        let digest = library::digest(file).unwrap_or_else(|| "its file cannot be read".to_owned());
        format!("{version}, {}, sha256 {digest}", file.display())
    };
    let driver = &gpu.driver;
    let version = driver::cuda_version(driver.cuda);
    let mut facts = vec![(
        "library libcuda".to_owned(),
        described(&driver.file, &version),
    )];
    if let Some(blas) = blas {
        let about = described(&blas.file, &blas.version());
        facts.push(("library cublaslt".to_owned(), about));
    }
    facts
}

struct Opened {
    info: DeviceInfo,
    gpu: Arc<gpu::Gpu>,
    modules: module::Modules,
    lt: RefCell<Option<Arc<blaslt::Lt>>>,
    blas: Option<Arc<blaslt::Blas>>,
    wanted: Matmuls,
    folder: Option<PathBuf>,
}

impl Opened {
    /// The library for this type, or `None` for hallmark's own kernels.
    fn library(&self, dtype: Dtype) -> Result<Option<&Arc<blaslt::Blas>>, KernelError> {
        match (&self.blas, blaslt::Blas::has(dtype)) {
            (Some(blas), true) => Ok(Some(blas)),
            (_, false) if self.wanted == Matmuls::CublasLt => Err(self.gpu.refuse(format!(
                "cuBLASLt multiplies no {dtype} with {dtype}; use --cuda-matmul own"
            ))),
            _ => Ok(None),
        }
    }

    /// One handle and one workspace for all steps of the device: they run one after the other.
    fn handle(
        &self,
        blas: &Arc<blaslt::Blas>,
        stream: &gpu::Stream,
    ) -> Result<Arc<blaslt::Lt>, KernelError> {
        if let Some(lt) = &*self.lt.borrow() {
            return Ok(Arc::clone(lt));
        }
        let lt = blaslt::Lt::new(&self.gpu, blas, stream)?;
        *self.lt.borrow_mut() = Some(Arc::clone(&lt));
        Ok(lt)
    }

    fn matmuls(
        &self,
        spec: &StepSpec,
        stream: &gpu::Stream,
        arrays: &arrays::Arrays,
    ) -> Result<BTreeMap<Gemm, rig::Matmul>, KernelError> {
        let lt = match self.library(spec.dtype)? {
            Some(blas) if !spec.gemms.is_empty() => Some(self.handle(blas, stream)?),
            _ => None,
        };
        let pairs = arrays.addresses();
        let mut plans = BTreeMap::new();
        for &gemm in &spec.gemms {
            if plans.contains_key(&gemm) {
                continue;
            }
            let plan = match (&lt, pairs.first()) {
                (Some(lt), Some(&[a, b])) => {
                    let operands = [a, b, arrays.c.at];
                    rig::Matmul::Lt(blaslt::Plan::new(lt, spec.dtype, gemm, stream, operands)?)
                }
                _ => rig::Matmul::Own(own::Plan::new(
                    &self.gpu,
                    &self.modules,
                    spec.dtype,
                    gemm,
                    &pairs,
                )?),
            };
            plans.insert(gemm, plan);
        }
        Ok(plans)
    }
}

impl Device for Opened {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn free_memory(&self) -> Bytes {
        // A device that cannot say has nothing to promise.
        self.gpu.free().unwrap_or(Bytes(0))
    }

    fn prepare(
        &mut self,
        spec: &StepSpec,
        collective: Option<Box<dyn Collective>>,
    ) -> Result<Box<dyn PreparedStep>, KernelError> {
        let layout = layout::Layout::new(spec, &self.info, self.free_memory())?;
        let gpu = &self.gpu;
        let stream = gpu.stream()?;
        let kernels = arrays::StepKernels::new(&self.modules, spec.dtype)?;
        let events = course::Places::new(spec.gemms.len()).count();
        let arrays = arrays::Arrays::new(gpu, &stream, &kernels, spec, &layout, events)?;
        let matmuls = self.matmuls(spec, &stream, &arrays)?;
        let desk = expect::Desk {
            gpu,
            stream: &stream,
            kernels: &kernels,
            spec,
            layout: &layout,
        };
        let answers = desk.answers()?;
        let about = matmuls.values().map(rig::Matmul::about);
        let mut facts = vec![("matmuls".to_owned(), about.collect::<Vec<_>>().join("; "))];
        facts.push((
            "operands".to_owned(),
            format!("whole numbers up to {}", layout.range),
        ));
        facts.extend(self.modules.times());
        let mut rig = rig::Rig {
            gpu: Arc::clone(gpu),
            graphs: graph::Graphs::none(gpu),
            rank: collective.as_ref().map(|c| c.rank()),
            copies: gpu.stream()?,
            spec: spec.clone(),
            matmuls,
            arrays,
            kernels,
            stream,
            layout,
        };
        facts.push(("graphs".to_owned(), graph::Graphs::capture(&mut rig)?));
        Ok(Box::new(step::Step::new(rig, answers, collective, facts)?))
    }

    fn test_memory(&mut self) -> Result<Option<MemoryTest>, KernelError> {
        pattern::test(&self.gpu, &self.modules).map(Some)
    }

    fn reduce_within(&mut self, ask: &Within) -> Result<Option<WithinDone>, KernelError> {
        reduce::within(&self.gpu, &self.modules, ask).map(Some)
    }

    fn reduce_alone(&mut self, ask: &Alone) -> Result<Option<AloneDone>, KernelError> {
        alone::alone(&self.gpu, self.folder.as_deref(), ask).map(Some)
    }
}
