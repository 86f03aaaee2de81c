//! Stands in for a language whose feature is off.

use std::rc::Rc;

use super::element::{Element, Source};
use super::error::{ConfigError, Result};

fn refused(source: &Rc<Source>, language: &str) -> ConfigError {
    let feature = language.to_lowercase();
    source.place(0).error(format!("a configuration in {language} needs logdag's feature {feature}"))
}

#[cfg(not(feature = "toml"))]
pub(super) mod toml {
    use super::*;

    pub(in super::super) fn into_element(source: &Rc<Source>, _: Element) -> Result<Element> {
        Err(refused(source, "TOML"))
    }
}

#[cfg(not(feature = "xml"))]
pub(super) mod xml {
    use super::*;

    pub(in super::super) fn root(source: &Rc<Source>) -> Result<Element> {
        Err(refused(source, "XML"))
    }

    pub(in super::super) fn snippet(source: &Rc<Source>) -> Result<Vec<Element>> {
        Err(refused(source, "XML"))
    }
}
