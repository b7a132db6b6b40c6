//! `sequence`, `optional`, `tf_idf`, and lists of extents.
use crate::{check, refuse};

const TWO: &str =
    "float[2] a = {1.0, 2.0}, float[1] b = {3.0}, int64 i = {1}, int64 back = {-1}, int64 far = {2}";

#[test]
fn sequences() {
    check(&[
        (11, TWO, "s = SequenceConstruct (a, b) y = SequenceAt (s, i)", "float[1] y = {3.0}"),
        (11, TWO, "s = SequenceConstruct (a, b) y = SequenceLength (s)", "int64 y = {2}"),
        (
            11,
            TWO,
            "s = SequenceConstruct (a, b) t = SequenceErase (s, back) y = ConcatFromSequence <axis = 0> (t)",
            "float[2] y = {1.0, 2.0}",
        ),
        (
            11,
            TWO,
            "s = SequenceConstruct (a, b) t = SequenceErase (s) y = ConcatFromSequence <axis = 0> (t)",
            "float[2] y = {1.0, 2.0}",
        ),
        // before the place that is given, behind all others without one
        (
            11,
            TWO,
            "s = SequenceConstruct (a, b) t = SequenceInsert (s, b, i) y = ConcatFromSequence <axis = 0> (t)",
            "float[4] y = {1.0, 2.0, 3.0, 3.0}",
        ),
        (
            11,
            TWO,
            "s = SequenceConstruct (b, b) t = SequenceInsert (s, a) y = ConcatFromSequence <axis = 0> (t)",
            "float[4] y = {3.0, 3.0, 1.0, 2.0}",
        ),
        (
            11,
            TWO,
            "s = SequenceConstruct (b, b) t = SequenceInsert (s, a, far) y = ConcatFromSequence <axis = 0> (t)",
            "float[4] y = {3.0, 3.0, 1.0, 2.0}",
        ),
        (
            11,
            "int32 x = {7}",
            "s = SequenceEmpty <dtype = 6> () t = SequenceInsert (s, x) y = SequenceAt (t, z) z = Constant <value = int64 {0}> ()",
            "int32 y = {7}",
        ),
        (11, "", "s = SequenceEmpty () y = SequenceLength (s)", "int64 y = {0}"),
    ]);
    refuse(&[
        (11, TWO, "s = SequenceConstruct (a, b) y = SequenceAt (s, far)", "index: got 2"),
        (
            11,
            TWO,
            "s = SequenceConstruct (a, b) t = SequenceErase (s, far) y = SequenceLength (t)",
            "index: got 2",
        ),
    ]);
}

#[test]
fn optionals() {
    check(&[
        (
            15,
            "float[2] x = {1.0, 2.0}",
            "o = Optional (x) y = OptionalGetElement (o)",
            "float[2] y = {1.0, 2.0}",
        ),
        (15, "float[2] x = {1.0, 2.0}", "o = Optional (x) y = OptionalHasElement (o)", "bool y = {1}"),
        (15, "", "o = Optional <type = float[2]> () y = OptionalHasElement (o)", "bool y = {0}"),
        // opset 18: also of what is no optional
        (18, "float[2] x = {1.0, 2.0}", "y = OptionalGetElement (x)", "float[2] y = {1.0, 2.0}"),
        (18, "", "y = OptionalHasElement ()", "bool y = {0}"),
    ]);
    refuse(&[(15, "", "o = Optional <type = float[2]> () y = OptionalGetElement (o)", "got no value")]);
}

#[test]
fn counts_of_grams() {
    // pool: the 1-grams 2, 3 and the 2-grams (2, 3), (3, 2); places 0, 1 and 2, 3
    let pool = "pool_int64s = [2, 3, 2, 3, 3, 2], ngram_counts = [0, 2], ngram_indexes = [0, 1, 2, 3]";
    let node = |attrs: &str| -> &'static str { format!("y = TfIdfVectorizer <{attrs}, {pool}> (x)").leak() };
    let x = "int64[5] x = {2, 3, 1, 3, 2}";
    check(&[
        (
            9,
            x,
            node("mode = \"TF\", min_gram_length = 1, max_gram_length = 1, max_skip_count = 0"),
            "float[4] y = {2.0, 2.0, 0.0, 0.0}",
        ),
        (
            9,
            x,
            node("mode = \"TF\", min_gram_length = 1, max_gram_length = 2, max_skip_count = 0"),
            "float[4] y = {2.0, 2.0, 1.0, 1.0}",
        ),
        // with one token skipped at most, (3, 1, 3) gives no gram of the pool; skips of 0 stay
        (
            9,
            x,
            node("mode = \"TF\", min_gram_length = 2, max_gram_length = 2, max_skip_count = 0"),
            "float[4] y = {0.0, 0.0, 1.0, 1.0}",
        ),
        (
            9,
            x,
            node(
                "mode = \"IDF\", weights = [0.5, 2.0, 3.0, 4.0], min_gram_length = 1, max_gram_length = 1, max_skip_count = 0",
            ),
            "float[4] y = {0.5, 2.0, 0.0, 0.0}",
        ),
        (
            9,
            x,
            node(
                "mode = \"TFIDF\", weights = [0.5, 2.0, 3.0, 4.0], min_gram_length = 1, max_gram_length = 2, max_skip_count = 0",
            ),
            "float[4] y = {1.0, 4.0, 3.0, 4.0}",
        ),
        (
            9,
            "int32[2,2] x = {2, 3, 3, 3}",
            node("mode = \"TF\", min_gram_length = 1, max_gram_length = 1, max_skip_count = 0"),
            "float[2,4] y = {1.0, 1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0}",
        ),
        (
            9,
            "string[3] x = {\"a\", \"b\", \"a\"}",
            "y = TfIdfVectorizer <mode = \"TF\", min_gram_length = 1, max_gram_length = 1, max_skip_count = 0, pool_strings = [\"b\", \"a\"], ngram_counts = [0], ngram_indexes = [1, 0]> (x)",
            "float[2] y = {2.0, 1.0}",
        ),
    ]);
    refuse(&[
        (9, x, node("mode = \"tf\", min_gram_length = 1, max_gram_length = 1, max_skip_count = 0"), "mode"),
        (
            9,
            x,
            "y = TfIdfVectorizer <mode = \"TF\", min_gram_length = 1, max_gram_length = 1, max_skip_count = 0, ngram_counts = [0], ngram_indexes = [0]> (x)",
            "pool",
        ),
    ]);
}

#[test]
fn lists_of_extents_have_no_negative_numbers() {
    refuse(&[
        (
            18,
            "float[1,2,2] x = {1.0, 2.0, 3.0, 4.0}, int64[2] i = {1, -3}, int64[2] b = {1, 2}",
            "y = Col2Im (x, i, b)",
            "image_shape",
        ),
        (
            11,
            "float[1,1,3] x = {1.0, 2.0, 3.0}, float[1,1,1] w = {1.0}",
            "y = Conv <dilations = [-1]> (x, w)",
            "dilations",
        ),
    ]);
}
