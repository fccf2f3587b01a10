use proptest::prelude::*;

use super::*;

/// All frames of these bytes when they come `piece` at a time.
fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, String> {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    for chunk in bytes.chunks(piece.max(1)) {
        decoder.buffer.extend_from_slice(chunk);
        while let Some(frame) = decoder.next()? {
            frames.push(frame);
        }
        assert!(decoder.buffer.len() <= HEAD + MAX_CONTROL, "what waits is bounded");
    }
    Ok(frames)
}

/// Pieces of one stream in a row as one, as it is not told how they are cut.
fn joined(frames: Vec<Frame>) -> Vec<Frame> {
    let mut whole: Vec<Frame> = Vec::new();
    for frame in frames {
        match (whole.last_mut(), frame) {
            (Some(Frame::Data { stream, fin, data }), Frame::Data { stream: of, fin: last, data: more })
                if *stream == of && !*fin =>
            {
                *data = [&data[..], &more[..]].concat().into();
                *fin = last;
            }
            (_, frame) => whole.push(frame),
        }
    }
    whole
}

#[test]
fn frames_of_a_server() {
    // A reply with packed headers, data, its end, a reset, a ping, and the connection's end.
    let bytes = [
        &[0x80, 3, 0, 2, 0, 0, 0, 8, 0, 0, 0, 1, 0x78, 0xbb, 0xe3, 0xc6][..],
        &[0, 0, 0, 3, 0, 0, 0, 3, b'a', b'b', b'c'],
        &[0, 0, 0, 3, 1, 0, 0, 0],
        &[0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0],
        &[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 1, 0],
        &[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 3],
        &[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 2],
        &[0x80, 3, 0, 2, 1, 0, 0, 4, 0, 0, 0, 7],
        &[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let expected = [
        Frame::Reply { stream: 1, fin: false },
        Frame::Data { stream: 3, fin: false, data: Bytes::from_static(b"abc") },
        Frame::Data { stream: 3, fin: true, data: Bytes::new() },
        Frame::Reset { stream: 5, status: 3 },
        Frame::Ping { id: 2 },
        Frame::Reply { stream: 7, fin: true },
        Frame::GoAway,
    ];
    assert_eq!(decode(&bytes, bytes.len()).unwrap(), expected);
    assert_eq!(joined(decode(&bytes, 1).unwrap()), joined(expected.to_vec()));
}

#[test]
fn streams_are_asked_for_as_spdy_wants_it() {
    let mut encoder = Encoder::default();
    let mut bytes = Vec::new();
    encoder.open(&mut bytes, 1, &[("streamtype", "error")]);
    let first: Vec<u8> = [
        // Kind, length, stream, no parent, priority and slot.
        &[0x80, 3, 0, 1, 0, 0, 0, 48, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..],
        // The zlib stream begins, with a stored block of 27 bytes.
        &[0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2, 0, 27, 0, 228, 255],
        &[0, 0, 0, 1, 0, 0, 0, 10],
        b"streamtype",
        &[0, 0, 0, 5],
        b"error",
    ]
    .concat();
    assert_eq!(bytes, first);
    bytes.clear();
    encoder.open(&mut bytes, 3, &[]);
    // The stream of headers goes on; it begins once.
    assert_eq!(
        bytes,
        [0x80, 3, 0, 1, 0, 0, 0, 19, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 251, 255, 0, 0, 0, 0]
    );
    assert_eq!(Encoder::pong(2), [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 2]);
    assert_eq!(Encoder::data_head(5, true, 0x1234), [0, 0, 0, 5, 1, 0, 0x12, 0x34]);
}

#[test]
fn what_is_no_spdy_is_refused() {
    for (bytes, words) in [
        (&b"HTTP/1.1 400 Bad"[..], "data"),
        (&[0, 0, 0, 0, 0, 0, 0, 0], "stream 0"),
        (&[0x80, 2, 0, 6, 0, 0, 0, 4], "version 2"),
        (&[0x80, 3, 0, 2, 0, 2, 0, 0], "131072 bytes"),
        (&[0x80, 3, 0, 6, 0, 0, 0, 3, 1, 2, 3], "too short"),
        (&[0x80, 3, 0, 1, 0, 0, 0, 0], "opens a stream"),
        (&[0x80, 3, 0, 77, 0, 0, 0, 0], "unknown kind 77"),
    ] {
        match decode(bytes, bytes.len()) {
            Err(error) => assert!(error.contains(words), "{error}"),
            // Four letters are a stream's number: who reads it knows that there is no such stream.
            Ok(frames) => assert!(matches!(frames[..], [Frame::Data { stream: 0x4854_5450, .. }])),
        }
    }
}

#[test]
fn a_long_data_frame_is_handed_on_in_pieces() {
    let mut bytes = vec![0, 0, 0, 1, 1, 0xff, 0xff, 0xff];
    bytes.resize(HEAD + 0xff_ffff, 7);
    let mut decoder = Decoder::default();
    let mut came = 0;
    for chunk in bytes.chunks(100_000) {
        decoder.buffer.extend_from_slice(chunk);
        while let Some(frame) = decoder.next().unwrap() {
            let Frame::Data { stream: 1, fin, data } = frame else { panic!("{frame:?}") };
            assert!(!data.is_empty() && data.len() <= MAX_PIECE);
            came += data.len();
            assert_eq!(fin, came == 0xff_ffff);
        }
        assert!(decoder.buffer.is_empty());
    }
    assert_eq!(came, 0xff_ffff);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_alike_however_they_are_cut(
        bytes in proptest::collection::vec(any::<u8>(), 0..2048),
        piece in 1usize..64,
    ) {
        let whole = decode(&bytes, bytes.len()).map(joined);
        prop_assert_eq!(decode(&bytes, piece).map(joined), whole);
    }

    #[test]
    fn frames_come_out_as_they_went_in(
        frames in proptest::collection::vec(
            (1u32..9, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..600), any::<bool>()),
            0..20,
        ),
        piece in 1usize..700,
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (stream, fin, data, ping) in frames {
            bytes.extend(Encoder::data_head(stream, fin, data.len()));
            bytes.extend_from_slice(&data);
            expected.push(Frame::Data { stream, fin, data: data.into() });
            if ping {
                bytes.extend(Encoder::pong(stream));
                expected.push(Frame::Ping { id: stream });
            }
        }
        prop_assert_eq!(joined(decode(&bytes, piece).unwrap()), joined(expected));
    }
}
