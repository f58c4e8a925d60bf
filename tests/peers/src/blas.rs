//! OpenBLAS, loaded at run time: one function of it, and which kernels it chose.

use hallmark_kernels::cpu::matmul::Shape;
use libloading::Library;
use std::error::Error;
use std::ffi::{CStr, c_char, c_int};

/// `cblas_sgemm` of the CBLAS interface with 32-bit integers.
type Sgemm = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    f32,
    *const f32,
    c_int,
    *const f32,
    c_int,
    f32,
    *mut f32,
    c_int,
);
const ROW_MAJOR: c_int = 101;
const NO_TRANSPOSE: c_int = 111;

pub struct Blas {
    sgemm: Sgemm,
    /// Name of the processor family whose kernels run.
    pub core: String,
    /// Keeps the function pointer valid.
    _library: Library,
}

impl Blas {
    pub fn load(threads: usize) -> Result<Self, Box<dyn Error>> {
        // SAFETY: the names and signatures are those of OpenBLAS' public headers; the library
        // stays loaded as long as the pointer taken from it.
        unsafe {
            let library = Library::new("libopenblas.so.0")?;
            let set_threads =
                *library.get::<unsafe extern "C" fn(c_int)>(b"openblas_set_num_threads\0")?;
            let core_name = *library
                .get::<unsafe extern "C" fn() -> *const c_char>(b"openblas_get_corename\0")?;
            let sgemm = *library.get::<Sgemm>(b"cblas_sgemm\0")?;
            set_threads(c_int::try_from(threads)?);
            let core = CStr::from_ptr(core_name()).to_string_lossy().into_owned();
            Ok(Self {
                sgemm,
                core,
                _library: library,
            })
        }
    }

    pub fn sgemm(
        &self,
        shape: Shape,
        a: &[f32],
        b: &[f32],
        c: &mut [f32],
    ) -> Result<(), Box<dyn Error>> {
        let Shape { m, n, k } = shape;
        if a.len() != m * k || b.len() != k * n || c.len() != m * n {
            return Err(format!("slices do not fit {shape}").into());
        }
        let [m, n, k] = [
            c_int::try_from(m)?,
            c_int::try_from(n)?,
            c_int::try_from(k)?,
        ];
        // SAFETY: the slices fit the shape (checked above).
        unsafe {
            (self.sgemm)(
                ROW_MAJOR,
                NO_TRANSPOSE,
                NO_TRANSPOSE,
                m,
                n,
                k,
                1.0,
                a.as_ptr(),
                k,
                b.as_ptr(),
                n,
                0.0,
                c.as_mut_ptr(),
                n,
            );
        }
        Ok(())
    }
}
