//! What the ways in from `log` and `tracing` share.

/// The stream of targets that name none.
const OTHER: &str = "log";

/// The stream of a target: `my_app::http` is `my_app/http`. What cannot be part of a name is left out of it.
pub(crate) fn stream_name(target: &str) -> String {
    let parts = target.split(['/', ':']).filter(|part| !part.is_empty());
    let mut name: String = parts.collect::<Vec<_>>().join("/").replace(char::is_control, "_");
    if name.len() > crate::graph::MAX_NAME {
        let end = (0..=crate::graph::MAX_NAME).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
        name.truncate(end);
    }
    let name = name.trim_end_matches('/');
    if name.is_empty() { OTHER.to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::stream_name;

    #[test]
    fn every_target_names_a_stream() {
        for (target, name) in [
            ("my_app::http", "my_app/http"),
            ("", "log"),
            ("https://x", "https/x"),
            ("a/", "a"),
            ("a\nb", "a_b"),
        ] {
            assert_eq!(stream_name(target), name, "{target:?}");
        }
        let graph = crate::Graph::new();
        for long in ["x".repeat(300), "é".repeat(200), format!("{}/b", "x".repeat(254))] {
            assert!(graph.stream(&stream_name(&long)).is_ok(), "{long}");
        }
    }
}
