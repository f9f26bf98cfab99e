//! Records and packs of pre-training data: any bytes are read or refused without a panic, and
//! written as they were read. The first two bytes say the form.
#![no_main]

use bert_model::data::{Pack, PackForm, PackLayout, Record, RecordLayout};
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
    for form in [PackForm::Slices, PackForm::Slots] {
        packs(
            PackLayout {
                sequence_length: layout.sequence_length,
                mask_tokens: layout.mask_tokens / 4,
                sequences: layout.mask_tokens % 4,
                form,
            },
            bytes,
        );
    }
});

fn packs(layout: PackLayout, bytes: &[u8]) {
    for chunk in bytes.chunks(layout.bytes().max(1)) {
        let Ok(pack) = Pack::from_bytes(layout, chunk) else {
            assert_ne!(chunk.len(), layout.bytes());
            continue;
        };
        let mut again = Vec::new();
        pack.write(&mut again);
        assert_eq!(again, chunk);
        // What has no fault holds the same in the other form, if that has room for all labels.
        if pack.fault().is_none()
            && let Some(other) = pack.in_form(PackForm::Slots)
        {
            assert_eq!(other.sequences(), pack.sequences());
        }
    }
}
