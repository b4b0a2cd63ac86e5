"""What belongs to a picture, such as a mask, boxes and keypoints, moved exactly as the picture is."""
