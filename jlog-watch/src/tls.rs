//! TLS of the server.

#[cfg(feature = "tls")]
pub use with::{Tls, TlsError};

/// The TLS configuration of connections.
#[cfg(feature = "tls")]
pub(crate) type Secure = tokio_rustls::TlsAcceptor;

/// Without the feature `tls`, this type has no value.
#[cfg(not(feature = "tls"))]
#[derive(Clone, Debug)]
pub(crate) enum Secure {}

#[cfg(feature = "tls")]
mod with {
    use std::fmt;
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use jlog_files::SmallFile;
    use rustls::crypto::ring;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
    use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
    use rustls::{RootCertStore, ServerConfig};

    use super::Secure;

    /// A server's certificate and, optionally, the authorities of its clients: see
    /// [`Watch::tls`](crate::Watch::tls). TLS 1.2 and 1.3.
    #[derive(Clone)]
    pub struct Tls {
        config: Arc<ServerConfig>,
        clients: bool,
    }

    impl fmt::Debug for Tls {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Tls").field("clients", &self.clients).finish_non_exhaustive()
        }
    }

    /// Why files cannot be used to secure connections.
    #[derive(Debug, thiserror::Error)]
    #[non_exhaustive]
    pub enum TlsError {
        /// A file cannot be read.
        #[error("{}: {source}", path.display())]
        Io {
            /// The file.
            path: PathBuf,
            /// Why.
            source: io::Error,
        },
        /// Everybody may read the key.
        #[error("the key {}: everybody may read it (mode {mode:o}); `chmod o= {}`", path.display(), path.display())]
        Open {
            /// The file.
            path: PathBuf,
            /// Its permission bits.
            mode: u32,
        },
        /// A file does not contain what it should.
        #[error("{}: expected {expected} in PEM{why}", path.display())]
        Contents {
            /// The file.
            path: PathBuf,
            /// What was expected.
            expected: &'static str,
            /// What is wrong; begins with `: `, or is empty.
            why: String,
        },
        /// The key is not that of the certificate.
        #[error("{}: the key in {} does not belong to the first certificate: {why}", certificate.display(), key.display())]
        Pair {
            /// The file of the certificates.
            certificate: PathBuf,
            /// The file of the key.
            key: PathBuf,
            /// What is wrong.
            why: String,
        },
    }

    impl Tls {
        /// Reads a certificate, followed by its chain, and its private key, which must not be
        /// readable by everybody. With `client_ca`, a file of certificate authorities, clients must
        /// have a valid certificate from one of these; others get no answer. All files are in PEM
        /// and are read once: to change them, restart the server.
        ///
        /// # Errors
        /// A file cannot be read, or does not contain what it should.
        pub fn from_files(
            certificate: impl AsRef<Path>,
            key: impl AsRef<Path>,
            client_ca: Option<&Path>,
        ) -> Result<Self, TlsError> {
            let (certificate, key) = (certificate.as_ref(), key.as_ref());
            let chain = certificates(certificate)?;
            let secret = secret(key)?;
            let provider = Arc::new(ring::default_provider());
            let pair = |e: rustls::Error| TlsError::Pair {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                why: e.to_string(),
            };
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(pair)?;
            let builder = match client_ca {
                None => builder.with_no_client_auth(),
                Some(path) => {
                    let wrong = |why: String| TlsError::Contents {
                        path: path.to_owned(),
                        expected: "certificates of authorities",
                        why: format!(": {why}"),
                    };
                    let mut roots = RootCertStore::empty();
                    for authority in certificates(path)? {
                        roots.add(authority).map_err(|e| wrong(e.to_string()))?;
                    }
                    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                    let verifier =
                        verifier.build().map_err(|e: VerifierBuilderError| wrong(e.to_string()))?;
                    builder.with_client_cert_verifier(verifier)
                }
            };
            let mut config = builder.with_single_cert(chain, secret).map_err(pair)?;
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Ok(Self { config: Arc::new(config), clients: client_ca.is_some() })
        }

        /// Whether clients must have a certificate.
        pub fn needs_client_certificates(&self) -> bool {
            self.clients
        }

        pub(crate) fn secure(&self) -> Secure {
            Secure::from(Arc::clone(&self.config))
        }
    }

    fn read(path: &Path, secret: bool) -> Result<Vec<u8>, TlsError> {
        let fail = |source| TlsError::Io { path: path.to_owned(), source };
        let limit = if secret { jlog_files::SECRET } else { jlog_files::CERTIFICATES };
        let SmallFile { bytes, mode } = jlog_files::read(path, limit).map_err(fail)?;
        if secret && mode & 0o007 != 0 {
            return Err(TlsError::Open { path: path.to_owned(), mode });
        }
        Ok(bytes)
    }

    fn said(error: &pem::Error) -> String {
        match error {
            pem::Error::NoItemsFound => String::new(),
            other => format!(": {other}"),
        }
    }

    fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let wrong = |why| TlsError::Contents { path: path.to_owned(), expected: "certificates", why };
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path, false)?).collect();
        let all = all.map_err(|e| wrong(said(&e)))?;
        if all.is_empty() { Err(wrong(String::new())) } else { Ok(all) }
    }

    fn secret(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&read(path, true)?).map_err(|e| TlsError::Contents {
            path: path.to_owned(),
            expected: "a private key",
            why: said(&e),
        })
    }
}
