import torch

from maskedclip_composer.models.cross_decoder import CrossDecoder


def decoder(depth: int = 2) -> CrossDecoder:
    torch.manual_seed(0)
    return CrossDecoder(16, depth, 2).double()


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, 5, 16, dtype=torch.float64), torch.randn(3, 4, 16, dtype=torch.float64)


def attend(attention: torch.nn.MultiheadAttention, queries, keys, visible) -> torch.Tensor:
    """Multi-head attention of one item, a head and a query at a time."""
    dim, heads = attention.embed_dim, attention.num_heads
    width = dim // heads
    q, k, v = (
        rows @ weight.T + bias
        for rows, weight, bias in zip(
            (queries, keys, keys), attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True
        )
    )
    gathered = torch.zeros_like(queries)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(len(q)):
            logits = torch.stack([q[i, part] @ k[j, part] / width**0.5 for j in visible])
            weights = logits.exp() / logits.exp().sum()
            gathered[i, part] = sum(weight * v[j, part] for weight, j in zip(weights, visible, strict=True))
    return attention.out_proj(gathered)


def test_a_block_is_self_attention_cross_attention_and_mlp_each_after_a_norm():
    model, (tokens, context) = decoder(), inputs()
    for parameter in model.parameters():  # biases and norms at their first values would hide a swap
        torch.nn.init.normal_(parameter, std=0.3)
    context_mask = torch.ones(3, 4)
    context_mask[1, 2:] = 0
    decoded = model(tokens, context, context_mask=context_mask)
    for item in range(3):
        x, visible = tokens[item], context_mask[item].nonzero().flatten().tolist()
        for block in model.blocks:
            normed = block.norm1(x)
            x = x + attend(block.self_attn, normed, normed, range(5))
            x = x + attend(block.multihead_attn, block.norm2(x), context[item], visible)
            x = x + block.linear2(torch.nn.functional.gelu(block.linear1(block.norm3(x))))
        torch.testing.assert_close(decoded[item], model.norm(x))


def test_padding_has_no_influence():
    model, (tokens, context) = decoder(), inputs()
    token_mask, context_mask = torch.ones(3, 5), torch.ones(3, 4)
    token_mask[0, 3:] = 0
    context_mask[1, 1:] = 0
    before = model(tokens, context, token_mask=token_mask, context_mask=context_mask)
    tokens[0, 3:], context[1, 1:] = 7.0, -7.0
    after = model(tokens, context, token_mask=token_mask, context_mask=context_mask)
    torch.testing.assert_close(after[token_mask > 0], before[token_mask > 0])


def test_masks_of_ones_are_no_masks():
    model, (tokens, context) = decoder(), inputs()
    masked = model(tokens, context, token_mask=torch.ones(3, 5), context_mask=torch.ones(3, 4))
    torch.testing.assert_close(masked, model(tokens, context))


def test_blocks_begin_with_weights_of_their_own_and_no_dropout():
    model = decoder()
    first, second = (dict(block.named_parameters()) for block in model.blocks)
    for name in ("self_attn.in_proj_weight", "multihead_attn.in_proj_weight", "linear1.weight"):
        assert not torch.equal(first[name], second[name])
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))
    tokens, context = inputs()
    assert torch.equal(model.train()(tokens, context), model(tokens, context))


def test_every_parameter_has_a_gradient():
    model, (tokens, context) = decoder(), inputs()
    (model(tokens, context) * torch.randn(3, 5, 16)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
