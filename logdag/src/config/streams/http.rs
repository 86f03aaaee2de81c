//! The settings of the HTTP server.

use std::path::PathBuf;

use super::known::HTTP_ATTRIBUTES;
use crate::config::checked::Http;
use crate::config::element::{Element, Place};
use crate::config::error::Result;
use crate::suggest::nearly;

/// Whether this element has the HTTP settings, perhaps with mistakes. Without any such attribute,
/// it is a group that happens to be called `http`; in TOML only if it has children.
pub(super) fn is_http(element: &Element) -> bool {
    let says = element
        .attributes
        .iter()
        .any(|(name, ..)| HTTP_ATTRIBUTES.contains(&&**name) || nearly(name, HTTP_ATTRIBUTES).is_some());
    element.name == "http" && (says || element.place.source.toml && element.children.is_empty())
}

/// Whether this element was probably meant to be `<http>`.
pub(super) fn is_nearly_http(element: &Element) -> bool {
    let name = nearly(&element.name, &["http"]).is_some() && element.name != "https";
    name && HTTP_ATTRIBUTES.iter().any(|name| element.attribute(name).is_some())
}

/// The HTTP settings in the root, or in a `<logs>` in it.
pub(super) fn http(root: &Element) -> Result<Option<(Http, Place)>> {
    let mut found = None;
    let in_root = root.contents();
    let logs = in_root.iter().filter(|element| element.name == "logs");
    for element in in_root.iter().copied().chain(logs.flat_map(|logs| logs.contents())) {
        if !is_http(element) {
            continue;
        }
        for (name, _, place) in &element.attributes {
            if !HTTP_ATTRIBUTES.contains(&&**name) {
                return Err(place.unknown("attribute", name, &element.shown(), HTTP_ATTRIBUTES));
            }
        }
        if let Some(child) = element.children.first() {
            return Err(child.place.error(format!("{} can have only attributes", element.shown())));
        }
        if found.is_some() {
            return Err(element.place.error(format!("there is an {} already", element.shown())));
        }
        let text = |name: &str| element.attribute(name).map(|(text, _)| text.to_owned());
        if text("address").is_none_or(|address| address.trim().is_empty()) {
            let why = format!("{} without address: expected 127.0.0.1:PORT or unix:PATH", element.shown());
            return Err(element.place.error(why));
        }
        let hosts = text("allow_host").unwrap_or_default();
        let hosts = hosts.split(',').map(str::trim).filter(|host| !host.is_empty());
        let http = Http {
            address: text("address").unwrap_or_default(),
            token_file: text("token_file").map(PathBuf::from),
            tls_cert: text("tls_cert").map(PathBuf::from),
            tls_key: text("tls_key").map(PathBuf::from),
            tls_client_ca: text("tls_client_ca").map(PathBuf::from),
            allow_hosts: hosts.map(str::to_owned).collect(),
        };
        if http.tls_cert.is_some() != http.tls_key.is_some()
            || (http.tls_client_ca.is_some() && http.tls_cert.is_none())
        {
            let why = format!(
                "{}: tls_cert and tls_key belong together, and tls_client_ca needs them",
                element.shown()
            );
            return Err(element.place.error(why));
        }
        let place = element.attribute("address").map_or(&element.place, |(_, place)| place);
        found = Some((http, place.clone()));
    }
    Ok(found)
}
