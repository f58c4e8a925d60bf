//! The authority of one run: who may speak as the controller, and who as which node.
//!
//! It is made when a run begins and signs one certificate for each node, with that node's name in it; whatever was
//! signed for another run, or by nobody, is refused while TLS is set up. A claim to be a node is checked against
//! the name in the certificate that came with it. It knows no files: who keeps a key decides where.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, ServerName};
use serde::{Deserialize, Serialize};

/// The name in the controller's certificate.
pub const CONTROLLER: &str = "controller.hallmark.invalid";
/// What follows a node's name in its certificate: no node can be taken for the controller, and a name of digits is one.
const OF_NODE: &str = ".node.hallmark.invalid";

/// Certificates that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate for `{name}`: {why}")]
pub struct AuthorityError {
    name: String,
    why: String,
}

/// What one side needs to speak, in PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The authority's certificate: who is believed.
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for Credentials {
    // A key has no business in a message or a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Signs the certificates of one run.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// An authority with a key of its own.
    ///
    /// # Errors
    /// [`AuthorityError`]: the system has no random numbers.
    pub fn new(run: &str) -> Result<Self, AuthorityError> {
        let fail = |e: rcgen::Error| AuthorityError {
            name: run.to_owned(),
            why: e.to_string(),
        };
        let key = KeyPair::generate().map_err(fail)?;
        let mut params = CertificateParams::new(Vec::new()).map_err(fail)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let name = format!("hallmark run {run}");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).map_err(fail)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// A key and a certificate for a node.
    ///
    /// # Errors
    /// [`AuthorityError`] for a name that no certificate can hold.
    pub fn node(&self, name: &str) -> Result<Credentials, AuthorityError> {
        self.issue(
            &format!("{name}{OF_NODE}"),
            ExtendedKeyUsagePurpose::ClientAuth,
        )
    }

    /// A key and a certificate for the controller.
    ///
    /// # Errors
    /// [`AuthorityError`]: the system has no random numbers.
    pub fn controller(&self) -> Result<Credentials, AuthorityError> {
        self.issue(CONTROLLER, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// `usage`: a node's certificate does not let it pose as the controller, nor the other way round.
    fn issue(
        &self,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Credentials, AuthorityError> {
        let fail = |e: rcgen::Error| AuthorityError {
            name: name.to_owned(),
            why: e.to_string(),
        };
        let key = KeyPair::generate().map_err(fail)?;
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(fail)?;
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).map_err(fail)?;
        Ok(Credentials {
            authority: self.certificate.clone(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// Whether a certificate, whose signature TLS has checked already, is for this node.
#[must_use]
pub fn is_for(certificate: &CertificateDer<'_>, node: &str) -> bool {
    let name = format!("{node}{OF_NODE}");
    let Ok(name) = ServerName::try_from(name.as_str()) else {
        return false;
    };
    webpki::EndEntityCert::try_from(certificate)
        .is_ok_and(|c| c.verify_is_valid_for_subject_name(&name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::pem::PemObject;

    #[test]
    fn a_certificate_is_for_the_node_it_names_and_for_no_other() {
        let authority = Authority::new("r1").unwrap();
        for name in ["n01", "GPU-7.hall-2.example", "n_1", "7"] {
            let issued = authority.node(name).unwrap();
            let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
            assert!(is_for(&der, name), "{name}");
            for other in ["n02", "n0", "", "n01.example", "*"] {
                assert!(!is_for(&der, other), "{name} is not {other}");
            }
        }
        assert!(!is_for(
            &CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]),
            "n01"
        ));
    }

    #[test]
    fn a_key_is_not_shown() {
        let issued = Authority::new("r1").unwrap().node("n01").unwrap();
        assert!(!format!("{issued:?}").contains("KEY"), "{issued:?}");
    }
}
