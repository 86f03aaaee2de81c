//! Messages that identify their writer, for tests in which several processes write.

/// The `seq`th message of a writer. Messages have various lengths, and differ in every byte.
pub fn message(writer: u32, seq: u32) -> Vec<u8> {
    let mut out = format!("{writer} {seq} ").into_bytes();
    let fill = b'a' + u8::try_from((writer * 5 + seq) % 26).unwrap_or(0);
    out.resize(out.len() + ((writer * 31 + seq * 7) % 50) as usize, fill);
    out
}

/// The writer of a message. `None` if the message is not exactly as its writer wrote it.
pub fn parse(body: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(body).ok()?;
    let mut words = text.split(' ');
    let (writer, seq) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (message(writer, seq) == body).then_some((writer, seq))
}
