//! TLS with the system's certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The trusted certificates, and our own.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Certificates to trust besides the system's, in a PEM file.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key, in PEM files.
    pub client: Option<(PathBuf, PathBuf)>,
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |e: &dyn std::fmt::Display| format!("cannot read certificates from {}: {e}", path.display());
    let file = jlog_files::read(path, jlog_files::CERTIFICATES).map_err(|e| failed(&e))?;
    let found = CertificateDer::pem_slice_iter(&file.bytes).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|e| failed(&e))?;
    if found.is_empty() {
        return Err(format!("{} contains no certificate in PEM", path.display()));
    }
    Ok(found)
}

/// The contents of the files.
pub struct Loaded {
    /// The authorities: the system's, and ours.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Our certificate with its chain, its key, and the certificate's file.
    pub client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, PathBuf)>,
}

impl Tls {
    /// The configuration; an error names the file that is wrong.
    #[cfg(any(feature = "http", feature = "nats"))]
    pub fn config(&self) -> Result<ClientConfig, String> {
        self.load()?.config()
    }

    /// Reads each file once; an error names the file that is wrong.
    pub fn load(&self) -> Result<Loaded, String> {
        // If the system has none, or some that cannot be read, a server's certificate is refused
        // later.
        let mut authorities = rustls_native_certs::load_native_certs().certs;
        if let Some(ca) = &self.ca {
            let own = certificates(ca)?;
            for certificate in &own {
                let mut alone = RootCertStore::empty();
                let trusted = alone.add(certificate.clone());
                trusted.map_err(|e| format!("{} cannot be trusted: {e}", ca.display()))?;
            }
            authorities.extend(own);
        }
        let client = self.client.as_ref().map(|(certificate, key)| {
            let failed =
                |e: &dyn std::fmt::Display| format!("cannot read a private key from {}: {e}", key.display());
            let file = jlog_files::read(key, jlog_files::SECRET).map_err(|e| failed(&e))?;
            let private = PrivateKeyDer::from_pem_slice(&file.bytes).map_err(|e| failed(&e))?;
            Ok::<_, String>((certificates(certificate)?, private, certificate.clone()))
        });
        Ok(Loaded { authorities, client: client.transpose()? })
    }
}

impl Loaded {
    /// The configuration; an error names the certificate that does not fit its key.
    pub fn config(self) -> Result<ClientConfig, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.authorities);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots);
        match self.client {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, key, file)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| format!("{} cannot be used: {e}", file.display())),
        }
    }
}
