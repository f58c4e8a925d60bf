//! Decides which of NVIDIA's shared libraries is opened, from which folder, and what is said of one that is not there.
//!
//! A library is opened, and every function it must have is looked up, before the first call: what is missing is an
//! [`Absent`] with its price and remedy, never a panic. A folder that the user named comes first, and a file there
//! that cannot be used is an error: nothing else is used in its stead. Refuses to unload a library, since
//! drivers keep threads.

use crate::device::Absent;
use sha2::{Digest, Sha256};
use std::ffi::c_void;
use std::io::Read;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

/// Below a folder that the user names, libraries may lie in these.
const BELOW: [&str; 3] = ["", "lib64", "lib"];

/// Where toolkits are installed without telling the loader.
const TOOLKIT: &str = "/usr/local/cuda/lib64";

/// What a library is looked for as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// File names, the one to be preferred first.
    pub names: &'static [&'static str],
    /// What cannot be done without it.
    pub price: &'static str,
    pub remedy: &'static str,
    /// Part of a toolkit rather than of the driver.
    pub toolkit: bool,
}

/// A library of the process.
pub(super) struct Library {
    handle: ManuallyDrop<libloading::Library>,
    /// The name it was opened by: a path where a folder was given.
    pub asked: String,
}

impl Library {
    /// Opens the first of `wanted` that is there, in `folder` before the loader's own places.
    pub fn open(wanted: &Wanted, folder: Option<&Path>) -> Result<Self, Absent> {
        let mut tried: Vec<String> = Vec::new();
        for path in candidates(wanted, folder) {
            let named = folder.is_some_and(|folder| path.starts_with(folder));
            if path.components().count() > 1 && !path.is_file() {
                continue;
            }
            // SAFETY: what runs is the library's own start-up code; it is a vendor's library by its name, and a user who
            // names a folder has chosen what is in it.
            match unsafe { libloading::Library::new(&path) } {
                Ok(handle) => {
                    return Ok(Self {
                        handle: ManuallyDrop::new(handle),
                        asked: path.display().to_string(),
                    });
                }
                Err(error) if named => return Err(wanted.absent(&reason(&error))),
                Err(error) => tried.push(reason(&error)),
            }
        }
        let first = tried.into_iter().next();
        let none = || format!("{} is nowhere to be found", wanted.names.join(" or "));
        Err(wanted.absent(&first.unwrap_or_else(none)))
    }

    /// The function `name`, or its name where the library has none.
    ///
    /// # Safety
    /// `T` must be a pointer to a function of the type that the library gives `name`.
    pub unsafe fn function<T: Copy>(&self, name: &'static str) -> Result<T, &'static str> {
        // SAFETY: the caller vouches for the type.
        let symbol = unsafe { self.handle.get::<T>(name) };
        symbol.map(|function| *function).map_err(|_| name)
    }

    /// The file that holds the code at `function`, where the system tells.
    pub fn file(function: *const c_void) -> Option<PathBuf> {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        file_at(&maps, function as u64)
    }
}

impl Wanted {
    /// That it cannot be used, why, and what that costs.
    pub fn absent(&self, why: &str) -> Absent {
        Absent {
            what: self
                .names
                .first()
                .map_or_else(String::new, |n| (*n).to_owned()),
            why: format!("{why}; {}", self.price),
            remedy: self.remedy.to_owned(),
        }
    }
}

/// Every place in order of preference.
fn candidates(wanted: &Wanted, folder: Option<&Path>) -> Vec<PathBuf> {
    let in_folder = folder.into_iter().flat_map(|folder| {
        let below = BELOW.iter().map(move |b| folder.join(b));
        below.flat_map(|place| wanted.names.iter().map(move |name| place.join(name)))
    });
    let by_loader = wanted.names.iter().map(PathBuf::from);
    let in_toolkit = wanted
        .names
        .iter()
        .filter(|_| wanted.toolkit)
        .map(|name| Path::new(TOOLKIT).join(name));
    in_folder.chain(by_loader).chain(in_toolkit).collect()
}

/// The system's own sentence is within the error that the loader returns.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// The file of the mapping that holds `address`, from the text of `/proc/self/maps`.
fn file_at(maps: &str, address: u64) -> Option<PathBuf> {
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let from = u64::from_str_radix(from, 16).ok()?;
        let to = u64::from_str_radix(to, 16).ok()?;
        let path = rest.get(rest.find('/')?..)?;
        (from..to)
            .contains(&address)
            .then(|| PathBuf::from(path.trim_end()))
    })
}

/// SHA-256 of a file in hexadecimal; `None` where it cannot be read.
pub(super) fn digest(path: &Path) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let mut hasher = Sha256::new();
    let mut page = vec![0; 1 << 20];
    loop {
        match file.read(&mut page).ok()? {
            0 => break,
            read => hasher.update(&page[..read]),
        }
    }
    Some(
        hasher
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect(),
    )
}

/// A table of a library's functions, each found before the table exists; and the names of those that are not there.
///
/// Functions that give a status are declared to return a plain number: a library newer than these
/// bindings may return a code that the bindings' enumeration does not hold.
macro_rules! functions {
    ($(#[$about:meta])* $table:ident { $($name:ident: fn($($argument:ty),* $(,)?) $(-> $result:ty)?;)* }) => {
        $(#[$about])*
        #[expect(non_snake_case, reason = "the library's own names")]
        pub(super) struct $table {
            $(pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl $table {
            /// Looks every function up; the names of those that are missing otherwise.
            pub fn find(library: &$crate::cuda::library::Library) -> Result<Self, Vec<&'static str>> {
                let mut missing = Vec::new();
                $(
                    // SAFETY: the signature is the one that the library's header gives this name.
                    #[expect(non_snake_case, reason = "the library's own names")]
                    let $name = unsafe {
                        library.function::<unsafe extern "C" fn($($argument),*) $(-> $result)?>(stringify!($name))
                    }
                    .map_err(|name| missing.push(name))
                    .ok();
                )*
                let found = || Some(Self { $($name: $name?,)* });
                found().ok_or(missing)
            }
        }
    };
}
pub(super) use functions;

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = Wanted {
        names: &["libhallmark-none.so.2", "libhallmark-none.so.1"],
        price: "nothing can be shown",
        remedy: "install it",
        toolkit: true,
    };

    functions! {
        /// What no library of this machine has.
        Impossible {
            hallmarkNoSuchFunction: fn(u32) -> u32;
        }
    }

    #[test]
    fn a_library_that_is_nowhere_says_what_that_costs_and_how_to_get_it() {
        let absent = Library::open(&WANTED, None).err().unwrap();
        assert_eq!(absent.what, "libhallmark-none.so.2");
        assert!(
            absent.why.contains("nothing can be shown"),
            "{}",
            absent.why
        );
        assert_eq!(absent.remedy, "install it");
    }

    #[test]
    fn a_broken_file_in_the_named_folder_is_an_error_and_nothing_else_is_taken() {
        let folder = std::env::temp_dir().join(format!("hallmark-broken-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("lib64")).unwrap();
        let wanted = Wanted {
            names: &["libc.so.6"],
            ..WANTED
        };
        assert!(Library::open(&wanted, Some(&folder)).is_ok());
        std::fs::write(folder.join("lib64/libc.so.6"), b"no library").unwrap();
        let absent = Library::open(&wanted, Some(&folder)).err().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(absent.why.contains("lib64/libc.so.6"), "{}", absent.why);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_missing_function_is_named_before_anything_is_called() {
        let wanted = Wanted {
            names: &["libc.so.6"],
            ..WANTED
        };
        let library = Library::open(&wanted, None).unwrap();
        let found = Impossible::find(&library).map(|table| table.hallmarkNoSuchFunction);
        assert_eq!(found.err().unwrap(), ["hallmarkNoSuchFunction"]);
    }

    #[test]
    fn an_address_is_found_in_the_file_that_holds_it() {
        let maps = "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/dbus daemon\n\
                    7f00-7f10 rw-p 00000000 00:00 0 \n\
                    7f10-7f20 r-xp 00000000 08:02 9 /lib/libcuda.so.1\n";
        let at = |address| file_at(maps, address).map(|p| p.display().to_string());
        assert_eq!(at(0x7f10).as_deref(), Some("/lib/libcuda.so.1"));
        assert_eq!(at(0x0040_0001).as_deref(), Some("/usr/bin/dbus daemon"));
        assert_eq!(at(0x7f05), None);
        assert_eq!(at(0x7f20), None);
    }

    #[test]
    fn a_digest_is_the_files_sha_256() {
        let path = std::env::temp_dir().join(format!("hallmark-digest-{}", std::process::id()));
        std::fs::write(&path, b"abc").unwrap();
        let found = digest(&path);
        std::fs::remove_file(&path).unwrap();
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(found.as_deref(), Some(want));
        assert_eq!(digest(&path), None);
    }
}
