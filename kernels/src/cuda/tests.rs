//! What the engine promises on a machine without its devices; what it promises on them is asked by `tests/gpu`.

use super::*;

#[test]
fn without_a_driver_nothing_panics_and_what_is_missing_has_a_price_and_a_remedy() {
    let folder = std::env::temp_dir().join(format!("hallmark-no-cuda-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("libcuda.so.1"), b"not a library").unwrap();
    let cuda = Cuda {
        options: Options {
            folder: Some(folder.clone()),
            matmuls: Matmuls::Auto,
        },
    };
    let absent = cuda.list().unwrap_err();
    assert_eq!(absent.what, "libcuda.so.1");
    assert!(absent.why.contains("own engine"), "{}", absent.why);
    assert!(absent.remedy.contains("550"), "{}", absent.remedy);
    assert_eq!(cuda.missing(), Vec::new());
    let info = bare();
    let error = cuda.open(&info).err().unwrap().to_string();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(
        error.starts_with("cuda0: ") && error.contains("libcuda.so.1"),
        "{error}"
    );
}

#[test]
fn a_worker_opens_a_device_with_the_libraries_that_the_run_listed_it_with() {
    let mut info = DeviceInfo {
        facts: vec![
            (FOLDER.to_owned(), "/opt/cuda".to_owned()),
            (MATMULS.to_owned(), "own".to_owned()),
        ],
        ..bare()
    };
    let wanted = Options {
        folder: Some(PathBuf::from("/opt/cuda")),
        matmuls: Matmuls::Own,
    };
    assert_eq!(options_of(&info, &Options::default()), wanted);
    info.facts.clear();
    assert_eq!(options_of(&info, &wanted), wanted);
}

fn bare() -> DeviceInfo {
    DeviceInfo {
        id: "cuda0".to_owned(),
        engine: "cuda".to_owned(),
        name: String::new(),
        vendor: String::new(),
        pci: None,
        uuid: None,
        driver: String::new(),
        memory: Bytes(0),
        dtypes: Vec::new(),
        software: false,
        cores: Vec::new(),
        facts: Vec::new(),
    }
}
