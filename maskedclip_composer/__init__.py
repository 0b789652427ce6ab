"""Semi-supervised vision-language pre-training of retinal image encoders with Composer and Streaming."""
