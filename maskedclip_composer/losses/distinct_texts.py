"""The label-guided contrastive loss without a row and a column for every pair."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def distinct_text_clip_loss(
    image_features: Float[Tensor, "pairs dim"],
    text_features: Float[Tensor, "texts dim"],
    text_index: Int[Tensor, " pairs"],
    labels: Int[Tensor, " pairs"],
    all_image_features: Float[Tensor, "all_pairs dim"],
    all_text_features: Float[Tensor, "all_texts dim"],
    all_text_index: Int[Tensor, " all_pairs"],
    all_labels: Int[Tensor, " all_pairs"],
    logit_scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Return the share that some pairs have in `label_guided_clip_loss` of all pairs, at the cost of distinct texts.

    MaskedCLIP (arXiv 2507.17239), eq. 2-4. Equal texts have equal logits, so a text that c pairs carry is one column
    with ln c added; and the mean of logits over the positives of a label is the logit of the mean feature of that
    label. With t_k the text of pair k, T and V the mean text and image feature of all pairs of a label, and s the logit
    scale, pair i has the mean of

        ln sum_u exp(s v_i . t_u + ln c_u) - s v_i . T(label_i)
        ln sum_j exp(s t_i . v_j) - s t_i . V(label_i)

    of which the first term of the second row is the same for all pairs of a text. Memory grows with pairs times
    distinct texts instead of pairs times pairs. Equal texts may carry different labels.

    Where every rank gives its own pairs and those of all ranks, the mean over ranks is the loss of a single process.
    Nothing here waits for a device. Computed in float32 or better, as the plain loss is.

    Args:
        image_features: L2-normalised, of the pairs whose share is returned.
        text_features: L2-normalised, the distinct texts of these pairs; a row that no pair has does not count.
        text_index: Row of `text_features` of each of these pairs.
        labels: Class of each of these pairs; distinct values for unlabelled pairs.
        all_image_features: L2-normalised, of all pairs, these included.
        all_text_features: L2-normalised, the texts of all pairs; a text may have several rows, and a row that no pair
            has does not count.
        all_text_index: Row of `all_text_features` of each of all pairs.
        all_labels: Class of each of all pairs.
        logit_scale: Inverse temperature, already exponentiated.

    Returns:
        Mean negative log-likelihood of these pairs over both directions, in nats.
    """
    dtype = torch.promote_types(image_features.dtype, torch.float32)
    images, texts, scale = image_features.to(dtype), text_features.to(dtype), logit_scale.to(dtype)
    all_images, all_texts = all_image_features.to(dtype), all_text_features.to(dtype)

    all_counts = count_rows(all_text_index, len(all_texts), dtype)
    to_texts = torch.logsumexp(scale * images @ all_texts.T + all_counts.log(), dim=1)  # exp(ln 0) takes a row out
    to_images = torch.logsumexp(scale * texts @ all_images.T, dim=1)
    weights = count_rows(text_index, len(texts), dtype) / len(images)

    group, all_group = (torch.searchsorted(all_labels.sort().values, values) for values in (labels, all_labels))
    mean_text = mean_of_group(all_texts.index_select(0, all_text_index), all_group).index_select(0, group)
    mean_image = mean_of_group(all_images, all_group).index_select(0, group)
    # Over pairs and not over texts: pairs of one text may have different labels.
    positives = (images * mean_text + texts.index_select(0, text_index) * mean_image).sum(dim=1)
    return (to_texts.mean() + to_images @ weights - scale * positives.mean()) / 2


def count_rows(index: Int[Tensor, " pairs"], rows: int, dtype: torch.dtype) -> Float[Tensor, " rows"]:
    """Return how often each of the values 0 to rows - 1 is in `index`; torch.bincount would wait for the device."""
    ones = torch.ones(len(index), dtype=dtype, device=index.device)
    return ones.new_zeros(rows).index_add(0, index, ones)


def mean_of_group(features: Float[Tensor, "pairs dim"], group: Int[Tensor, " pairs"]) -> Float[Tensor, "pairs dim"]:
    """Return in row g the mean of the features whose `group` is g, zeros where there are none.

    As many rows as pairs, because the number of groups is known on the device alone. A place in the sorted labels
    serves as group: torch.unique would wait for the device.
    """
    sums = torch.zeros_like(features).index_add(0, group, features)
    return sums / count_rows(group, len(features), features.dtype).clamp(min=1)[:, None]
