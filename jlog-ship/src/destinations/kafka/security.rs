//! TLS and SASL: properties of librdkafka's client.

use super::KafkaOptions;

/// Whether a property's value must not be shown.
pub(super) fn is_secret(property: &str) -> bool {
    matches!(property, "sasl.password" | "ssl.key.pem")
}

/// The properties for TLS and a login, or a description of the mistake.
#[cfg(not(feature = "kafka-ssl"))]
pub(super) fn properties(
    tls: bool,
    options: &KafkaOptions,
    mechanism: Option<&str>,
) -> Result<Vec<(&'static str, String)>, String> {
    let wanted = tls || options.ca.is_some() || options.client.is_some();
    if wanted || options.password.is_some() || mechanism.is_some() {
        return Err("TLS and SASL for Kafka need the feature kafka-ssl, which this build lacks".to_owned());
    }
    Ok(Vec::new())
}

#[cfg(feature = "kafka-ssl")]
pub(super) use with_ssl::properties;

#[cfg(feature = "kafka-ssl")]
mod with_ssl {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rustls::pki_types::PrivateKeyDer;

    use super::KafkaOptions;
    use crate::tls::Tls;

    /// The mechanism for a login, unless the URL names one. It reveals the password to nobody, not
    /// even to the broker.
    const MECHANISM: &str = "SCRAM-SHA-512";

    /// The properties for TLS and a login, or a description of the mistake. Each file is read once.
    pub fn properties(
        tls: bool,
        options: &KafkaOptions,
        mechanism: Option<&str>,
    ) -> Result<Vec<(&'static str, String)>, String> {
        let KafkaOptions { ca, client, password, .. } = options;
        if !tls && (ca.is_some() || client.is_some()) {
            return Err("certificates are for TLS: kafka+tls://…".to_owned());
        }
        let protocol = match (tls, password) {
            (false, None) => "plaintext",
            (false, Some(_)) => "sasl_plaintext",
            (true, None) => "ssl",
            (true, Some(_)) => "sasl_ssl",
        };
        let mut properties = vec![("security.protocol", protocol.to_owned())];
        match (mechanism, password) {
            (None, None) => {}
            (Some(mechanism), None) => {
                return Err(format!("sasl.mechanism={mechanism} needs a user and a password"));
            }
            (mechanism, Some((user, password))) => {
                let mechanism = mechanism.unwrap_or(MECHANISM);
                match mechanism {
                    "SCRAM-SHA-256" | "SCRAM-SHA-512" => {}
                    "PLAIN" if tls => {}
                    "PLAIN" => {
                        return Err(
                            "sasl.mechanism=PLAIN sends the password in plain text, which needs TLS: kafka+tls://…"
                                .to_owned(),
                        );
                    }
                    _ => {
                        return Err(format!(
                            "sasl.mechanism={mechanism} is not known: SCRAM-SHA-256, SCRAM-SHA-512, PLAIN"
                        ));
                    }
                }
                for (text, what) in [(user, "user"), (password, "password")] {
                    if text.is_empty() || text.contains('\0') {
                        return Err(format!("the {what} is empty or contains a NUL byte"));
                    }
                }
                properties.push(("sasl.mechanism", mechanism.to_owned()));
                properties.push(("sasl.username", user.clone()));
                properties.push(("sasl.password", password.clone()));
            }
        }
        if tls {
            let loaded = Tls { ca: ca.clone(), client: client.clone() }.load()?;
            if !loaded.authorities.is_empty() {
                let all = loaded.authorities.iter().map(|certificate| pem("CERTIFICATE", certificate));
                properties.push(("ssl.ca.pem", all.collect()));
            }
            if let Some((chain, key, _)) = &loaded.client {
                let label = match key {
                    PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
                    PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
                    _ => "PRIVATE KEY",
                };
                let chain = chain.iter().map(|certificate| pem("CERTIFICATE", certificate));
                properties.push(("ssl.certificate.pem", chain.collect()));
                properties.push(("ssl.key.pem", pem(label, key.secret_der())));
            }
            // This finds a key that belongs to another certificate.
            loaded.config()?;
        }
        Ok(properties)
    }

    fn pem(label: &str, der: &[u8]) -> String {
        let text = STANDARD.encode(der);
        let mut pem = format!("-----BEGIN {label}-----\n");
        for (n, c) in text.chars().enumerate() {
            if n > 0 && n % 64 == 0 {
                pem.push('\n');
            }
            pem.push(c);
        }
        pem + &format!("\n-----END {label}-----\n")
    }
}
