//! The store behind a lake: a folder, or a bucket that speaks S3.
//!
//! Files are streamed in parts, so memory stays bounded whatever their size; each is hashed on its way, and one that
//! is not what the record's manifest says is taken back before it can be seen. Requests have deadlines.

use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig, WriteMultipart,
};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of one part; S3 takes at most 10,000 parts a file, so files up to 78 GiB.
const PART: usize = 8 << 20;
/// Parts on their way at once.
const PARTS_AHEAD: usize = 4;
/// Time for one request, the transfer of a part included.
const REQUEST: Duration = Duration::from_secs(60);
/// Time within which a request that fails is tried again.
const RETRIES: Duration = Duration::from_secs(120);
/// Files of one record at most: more is no record.
const FILES_MAX: usize = 4096;

/// Why something could not be put into a lake or taken from it.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    #[error(
        "{what} `{name}` cannot be a partition's name; use letters, digits, `-`, `_` and `.`, at most 128"
    )]
    Name { what: &'static str, name: String },
    #[error("unknown store `{url}`; known: a folder, s3://BUCKET/PREFIX")]
    Scheme { url: String },
    #[error(
        "{url}: {why}; S3 is set up by AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for another service, AWS_ENDPOINT_URL (and AWS_ALLOW_HTTP=true where it has no TLS)"
    )]
    Setup { url: String, why: String },
    #[error("{key}: {why}")]
    Store { key: String, why: String },
    #[error("cannot read {path}: {why}")]
    Source { path: String, why: std::io::Error },
    #[error("cannot write {path}: {why}")]
    Target { path: String, why: std::io::Error },
    #[error("{path} changed while it was read; nothing of it was kept")]
    Changed { path: String },
    #[error(
        "{key} is another record's seal; a record is never replaced: choose another site, or take the old one away"
    )]
    Taken { key: String },
    #[error("no record at {url}: a record's folder holds `seal`")]
    Nothing { url: String },
    #[error("{key} is no file of a record")]
    Foreign { key: String },
    #[error(
        "stopped; what had been sent of the record does not count, as its seal is written last"
    )]
    Stopped,
}

/// A folder or bucket, and the path in it where the lake begins.
pub struct Lake {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    url: String,
    network: tokio::runtime::Runtime,
}

impl Lake {
    /// Opens the lake at `url`, a folder (made where it is missing) or `s3://BUCKET/PREFIX`.
    ///
    /// # Errors
    /// [`LakeError::Scheme`], [`LakeError::Setup`], [`LakeError::Target`].
    pub fn open(url: &str) -> Result<Self, LakeError> {
        let setup = |why: String| LakeError::Setup {
            url: url.to_owned(),
            why,
        };
        let network = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| setup(e.to_string()))?;
        let (store, prefix): (Arc<dyn ObjectStore>, Key) = match url.split_once("://") {
            Some(("s3", rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let store = bucket_store(bucket).map_err(|e| setup(e.to_string()))?;
                let prefix = Key::parse(prefix.trim_end_matches('/'));
                (Arc::new(store), prefix.map_err(|e| setup(e.to_string()))?)
            }
            Some(_) => {
                return Err(LakeError::Scheme {
                    url: url.to_owned(),
                });
            }
            None => {
                std::fs::create_dir_all(url).map_err(|why| LakeError::Target {
                    path: url.to_owned(),
                    why,
                })?;
                let store = LocalFileSystem::new_with_prefix(url);
                let store = store.map_err(|e| setup(e.to_string()))?.with_fsync(true);
                (Arc::new(store), Key::default())
            }
        };
        Ok(Self {
            store,
            prefix,
            url: url.trim_end_matches('/').to_owned(),
            network,
        })
    }

    /// Where it is, as the user named it.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn key(&self, path: &str) -> Key {
        path.split('/')
            .filter(|part| !part.is_empty())
            .fold(self.prefix.clone(), |key, part| key.join(part))
    }

    /// The content of a small file; `None` where there is none.
    ///
    /// # Errors
    /// [`LakeError::Store`].
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, LakeError> {
        let key = self.key(path);
        self.network.block_on(async {
            match self.store.get(&key).await {
                Ok(found) => Ok(Some(
                    found.bytes().await.map_err(|e| broken(&key, e))?.to_vec(),
                )),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(why) => Err(broken(&key, why)),
            }
        })
    }

    /// Puts a small file there, in place of one that may be there.
    ///
    /// # Errors
    /// [`LakeError::Store`].
    pub fn write(&self, path: &str, content: Vec<u8>) -> Result<(), LakeError> {
        let key = self.key(path);
        let put = self.store.put(&key, PutPayload::from(content));
        self.network
            .block_on(put)
            .map(drop)
            .map_err(|e| broken(&key, e))
    }

    /// Puts a file there whose content has this SHA-256 (hexadecimal). Returns its length, B.
    ///
    /// # Errors
    /// [`LakeError::Changed`] where it has not; [`LakeError::Source`], [`LakeError::Store`], [`LakeError::Stopped`] on
    /// Ctrl-C. Nothing is left to be seen after any of them.
    pub fn send(&self, path: &str, file: &Path, sha256: &str) -> Result<u64, LakeError> {
        let key = self.key(path);
        self.network.block_on(async {
            let upload = self.store.put_multipart(&key).await;
            let upload = upload.map_err(|e| broken(&key, e))?;
            let mut parts = WriteMultipart::new_with_chunk_size(upload, PART);
            let stopped = tokio::signal::ctrl_c();
            let sent = tokio::select! {
                sent = stream(&mut parts, &key, file) => sent,
                _ = stopped => Err(LakeError::Stopped),
            };
            let sent = sent.and_then(|(length, digest)| {
                let path = file.display().to_string();
                let same = digest.eq_ignore_ascii_case(sha256);
                same.then_some(length).ok_or(LakeError::Changed { path })
            });
            match sent {
                Ok(length) => {
                    parts.finish().await.map_err(|e| broken(&key, e))?;
                    Ok(length)
                }
                Err(why) => {
                    // Parts that nothing can see cost storage; what cannot be taken back, the store's rules remove.
                    let _ = parts.abort().await;
                    Err(why)
                }
            }
        })
    }

    /// Brings a record's files into an empty folder. Returns how many, 0 where there are none.
    ///
    /// # Errors
    /// [`LakeError::Foreign`] for what lies there and cannot be a record's; [`LakeError::Store`], [`LakeError::Target`].
    pub fn fetch(&self, into: &Path) -> Result<usize, LakeError> {
        self.network.block_on(async {
            let mut listed = self.store.list(Some(&self.prefix));
            let mut count = 0;
            while let Some(found) = listed
                .try_next()
                .await
                .map_err(|e| broken(&self.prefix, e))?
            {
                let foreign = || LakeError::Foreign {
                    key: found.location.to_string(),
                };
                let below = found.location.prefix_match(&self.prefix);
                let mut below = below.ok_or_else(foreign)?;
                let (Some(name), None) = (below.next(), below.next()) else {
                    return Err(foreign());
                };
                if count == FILES_MAX {
                    return Err(foreign());
                }
                self.bring(&found.location, &into.join(name.as_ref()))
                    .await?;
                count += 1;
            }
            Ok(count)
        })
    }

    async fn bring(&self, key: &Key, file: &Path) -> Result<(), LakeError> {
        let target = |why| LakeError::Target {
            path: file.display().to_string(),
            why,
        };
        let found = self.store.get(key).await.map_err(|e| broken(key, e))?;
        let mut bytes = found.into_stream();
        let mut out = File::create_new(file).map_err(target)?;
        while let Some(chunk) = bytes.try_next().await.map_err(|e| broken(key, e))? {
            out.write_all(&chunk).map_err(target)?;
        }
        Ok(())
    }
}

/// Sends a file in parts, as many at once as memory is given to. Returns its length and SHA-256.
async fn stream(
    parts: &mut WriteMultipart,
    key: &Key,
    file: &Path,
) -> Result<(u64, String), LakeError> {
    let source = |why| LakeError::Source {
        path: file.display().to_string(),
        why,
    };
    let mut from = File::open(file).map_err(source)?;
    let mut buffer = vec![0; 1 << 20];
    let (mut hash, mut length) = (Sha256::new(), 0);
    loop {
        let read = from.read(&mut buffer).map_err(source)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        length += read as u64;
        let room = parts.wait_for_capacity(PARTS_AHEAD).await;
        room.map_err(|e| broken(key, e))?;
        parts.write(&buffer[..read]);
    }
    let digest = hash.finalize();
    Ok((length, digest.iter().map(|b| format!("{b:02x}")).collect()))
}

fn bucket_store(bucket: &str) -> Result<object_store::aws::AmazonS3, object_store::Error> {
    // The one provider that is built in; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let plain = std::env::var("AWS_ALLOW_HTTP").is_ok_and(|v| v.eq_ignore_ascii_case("true"));
    let options = ClientOptions::new()
        .with_timeout(REQUEST)
        .with_connect_timeout(Duration::from_secs(10))
        .with_allow_http(plain);
    AmazonS3Builder::from_env()
        .with_config(AmazonS3ConfigKey::Bucket, bucket)
        .with_client_options(options)
        .with_retry(RetryConfig {
            retry_timeout: RETRIES,
            max_retries: 5,
            ..RetryConfig::default()
        })
        .build()
}

/// The innermost reason says what happened; the layers above it only that it did.
fn broken(key: &Key, error: object_store::Error) -> LakeError {
    let mut why: &dyn std::error::Error = &error;
    let mut told = error.to_string();
    while let Some(inner) = why.source() {
        why = inner;
        told = why.to_string();
    }
    LakeError::Store {
        key: key.to_string(),
        why: told,
    }
}
