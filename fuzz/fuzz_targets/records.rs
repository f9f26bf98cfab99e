//! Records of pre-training data: any bytes are read or refused without a panic, and written as
//! they were read. The first two bytes say the form.
#![no_main]

use bert_model::data::{Record, RecordLayout};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [sequence_length, mask_tokens, bytes @ ..] = bytes else {
        return;
    };
    let layout = RecordLayout {
        sequence_length: (*sequence_length).into(),
        mask_tokens: (*mask_tokens).into(),
    };
    for chunk in bytes.chunks(layout.bytes()) {
        let Ok(record) = Record::from_bytes(layout, chunk) else {
            assert_ne!(chunk.len(), layout.bytes());
            continue;
        };
        let mut again = Vec::new();
        record.write(&mut again);
        assert_eq!(again, chunk);
        let tokens = record.in_text_order();
        let mut counted = (0..).zip(&tokens);
        assert!(counted.all(|(place, token)| token.position == place) || record.fault().is_some());
    }
});
