//! Heads and trailers: an accepted one must encode to its announced length, and decode to the same value.

#![no_main]

use bytes::{Bytes, BytesMut};
use cok_proto::head::{self, RequestHead, ResponseHead};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, payload)) = data.split_first() else { return };
    let payload = Bytes::copy_from_slice(payload);
    let mut encoded = BytesMut::new();
    match kind % 3 {
        0 => {
            let Ok(head) = RequestHead::decode(payload.clone()) else { return };
            head.encode(&mut encoded);
            assert_eq!(head.encoded_len(), Ok(encoded.len()));
            assert_eq!(RequestHead::decode(encoded.clone().freeze()), Ok(head));
        }
        1 => {
            let Ok(head) = ResponseHead::decode(payload.clone()) else { return };
            head.encode(&mut encoded);
            assert_eq!(head.encoded_len(), Ok(encoded.len()));
            assert_eq!(ResponseHead::decode(encoded.clone().freeze()), Ok(head));
        }
        _ => {
            let Ok(fields) = head::decode_trailers(payload.clone()) else { return };
            head::put_fields(&mut encoded, &fields);
            assert_eq!(head::fields_len(&fields), Ok(encoded.len()));
            assert_eq!(head::decode_trailers(encoded.clone().freeze()), Ok(fields));
        }
    }
    // Names become lower case, and fields of one name move together. No field is lost or added.
    assert_eq!(encoded.len(), payload.len());
});
